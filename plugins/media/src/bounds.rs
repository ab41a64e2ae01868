//! All bounds of the media service.

/// Images are looked through in memory, in bytes.
pub const IMAGE_BYTES_MAX: u64 = 20 * 1024 * 1024;
/// Of an image, in pixels.
pub const SIDE_MAX: u32 = 8_192;
pub const PIXELS_MAX: u64 = 40_000_000;
/// Decoded for a thumbnail, in bytes: 24 million pixels of three bytes. A call has `memory` of plugin.toml.
pub const THUMBNAIL_ALLOC_BYTES_MAX: u64 = 72 * 1024 * 1024;
/// With the coefficients that the decoder of a progressive JPEG keeps beside the pixels, in bytes; twice `IMAGE_BYTES_MAX` stay for the file.
pub const PROGRESSIVE_ALLOC_BYTES_MAX: u64 = 112 * 1024 * 1024;
/// The longest sides of thumbnails, in pixels.
pub const THUMBNAIL_SIDES: [u32; 3] = [128, 320, 640];
/// A picture that did not become a thumbnail is decoded so often, and then once in this time: nobody who asks for it again and again takes the processor
/// from others, and many who open it at once decode it no more often than that side by side.
pub const THUMBNAIL_TRIES_MAX: u32 = 3;
pub const THUMBNAIL_FORGOTTEN_S: u64 = 60 * 60;
/// Within this time another call may still be at it: `wall` of plugin.toml.
pub const THUMBNAIL_MAKING_S: u64 = 20;
/// Read at once, and how often, to see how long a file lasts.
pub const PROBE_BYTES: u32 = 64 * 1024;
pub const PROBE_READS_MAX: u32 = 200;
/// A recording that says it is longer says nothing, in milliseconds.
pub const DURATION_MS_MAX: u64 = 366 * 24 * 60 * 60 * 1_000;
/// Looked at to see what a file is, in bytes.
pub const HEAD_BYTES: u32 = 4_096;
/// Read from or written to a blob at once, in bytes: what the host lets pass.
pub const PIECE_BYTES: usize = 1024 * 1024;
/// Uploads that one run of the schedule gives up.
pub const SWEPT_PER_RUN: u32 = 100;
/// Files of one person that are looked up at once to be deleted.
pub const DELETED_AT_ONCE: u32 = 100;
/// Of a call that deletes, in milliseconds: with less it ends, and comes again.
pub const DELETING_TIME_LEFT_MS: u64 = 2_000;
/// Where the settings are missing.
pub const QUOTA_BYTES: u64 = 1024 * 1024 * 1024;
pub const UPLOAD_TTL_S: u64 = 24 * 60 * 60;
pub const URL_TTL_S: u64 = 15 * 60;
/// Expired exports that one run of the schedule forgets.
pub const EXPORTS_CLEARED_PER_RUN: u64 = 500;
