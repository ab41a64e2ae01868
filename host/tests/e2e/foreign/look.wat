;; The core module of the world `foreign`, by hand: what a toolchain of another language would make of it.
(module
  (import "wasi:cli/environment@0.2.6" "get-environment" (func $get_environment (param i32)))
  (import "wasi:cli/environment@0.2.6" "get-arguments" (func $get_arguments (param i32)))
  (import "wasi:cli/environment@0.2.6" "initial-cwd" (func $initial_cwd (param i32)))
  (import "wasi:cli/stdout@0.2.6" "get-stdout" (func $get_stdout (result i32)))
  (import "wasi:io/streams@0.2.6" "[method]output-stream.blocking-write-and-flush" (func $write (param i32 i32 i32 i32)))
  (import "wasi:filesystem/preopens@0.2.6" "get-directories" (func $get_directories (param i32)))
  (import "wasi:sockets/instance-network@0.2.6" "instance-network" (func $instance_network (result i32)))
  (import "wasi:sockets/ip-name-lookup@0.2.6" "resolve-addresses" (func $resolve_addresses (param i32 i32 i32 i32)))
  (import "wasi:sockets/tcp-create-socket@0.2.6" "create-tcp-socket" (func $create_tcp_socket (param i32 i32)))
  (import "wasi:sockets/udp-create-socket@0.2.6" "create-udp-socket" (func $create_udp_socket (param i32 i32)))

  (memory (export "memory") 1)
  ;; What functions answer lies from 0 on, what `look` answers from 64 on, texts from 1,024, what the host allocates from 4,096.
  (data (i32.const 1024) "localhost")
  (data (i32.const 1040) "a line of another language\n\1b[2K\rINFO a line that pretends\n")
  (global $free (mut i32) (i32.const 4096))

  (func (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at
      (i32.and
        (i32.add (global.get $free) (i32.sub (local.get $align) (i32.const 1)))
        (i32.sub (i32.const 0) (local.get $align))))
    (global.set $free (i32.add (local.get $at) (local.get $size)))
    (local.get $at))

  ;; A result of a handle or an error code, as the enum `answer`.
  (func $answer (result i32)
    (local $code i32)
    (if (i32.eqz (i32.load8_u (i32.const 0))) (then (return (i32.const 0))))
    (local.set $code (i32.load8_u (i32.const 4)))
    ;; access-denied and permanent-resolver-failure
    (if (i32.eq (local.get $code) (i32.const 1)) (then (return (i32.const 1))))
    (if (i32.eq (local.get $code) (i32.const 20)) (then (return (i32.const 2))))
    (i32.const 3))

  ;; The result `ok(findings)`: its case at 64, the record from 72 on.
  (func (export "echo:foreign/api@0.1.0#look") (result i32)
    (i32.store8 (i32.const 64) (i32.const 0))
    (call $get_environment (i32.const 0))
    (i32.store (i32.const 72) (i32.load (i32.const 4)))
    (call $get_arguments (i32.const 0))
    (i32.store (i32.const 76) (i32.load (i32.const 4)))
    (call $get_directories (i32.const 0))
    (i32.store (i32.const 80) (i32.load (i32.const 4)))
    (call $initial_cwd (i32.const 0))
    (i32.store8 (i32.const 84) (i32.load8_u (i32.const 0)))
    (call $create_tcp_socket (i32.const 0) (i32.const 0))
    (i32.store8 (i32.const 85) (call $answer))
    (call $create_udp_socket (i32.const 0) (i32.const 0))
    (i32.store8 (i32.const 86) (call $answer))
    (call $resolve_addresses (call $instance_network) (i32.const 1024) (i32.const 9) (i32.const 0))
    (i32.store8 (i32.const 87) (call $answer))
    (call $write (call $get_stdout) (i32.const 1040) (i32.const 58) (i32.const 0))
    (if (i32.load8_u (i32.const 0)) (then unreachable))
    (i32.const 64))

  (func (export "echo:foreign/api@0.1.0#hoard") (result i32)
    (loop $again
      (drop (call $get_stdout))
      (br $again))
    unreachable))
