// Requests, typed by the OpenAPI document: `rest.get('/api/v1/messages/{id}', { path: { id } })`.

import type { paths } from './generated/openapi.js';
import { REQUEST_WAIT_MS } from './limits.js';
import { Problem, Unreachable, retryAfterMs } from './problem.js';
import type { ProblemDocument } from './types.js';

type Method = 'get' | 'post' | 'put' | 'patch' | 'delete';
type PathsWith<M extends Method> = { [P in keyof paths]: paths[P] extends { [K in M]: { responses: unknown } } ? P : never }[keyof paths];
type OperationOf<P extends keyof paths, M extends Method> = paths[P] extends { [K in M]: infer O } ? O : never;
type JsonOf<C> = C extends { content: { 'application/json': infer B } } ? B : undefined;
type RepliesOf<R> = { [S in keyof R & (200 | 201 | 202 | 204)]: JsonOf<R[S]> }[keyof R & (200 | 201 | 202 | 204)];
type ReplyOf<O> = O extends { responses: infer R } ? RepliesOf<R> : never;
type PathOf<O> = O extends { parameters: { path: infer V extends object } } ? { path: V } : { path?: undefined };
type QueryOf<O> = O extends { parameters: { query: infer V extends object } }
  ? { query: V }
  : O extends { parameters: { query?: infer V } }
    ? { query?: V }
    : { query?: undefined };
type BodyOf<O> = O extends { requestBody: infer B }
  ? { body: JsonOf<B> }
  : O extends { requestBody?: infer B }
    ? { body?: [NonNullable<B>] extends [never] ? undefined : JsonOf<NonNullable<B>> }
    : { body?: undefined };
type InputOf<O> = PathOf<O> & QueryOf<O> & BodyOf<O>;
/** Without required members the input may be left out. */
type Arguments<I> = Record<string, never> extends I ? [input?: I] : [input: I];

export interface LooseInput {
  path?: Record<string, string | number> | undefined;
  query?: Record<string, unknown> | undefined;
  body?: unknown;
  /** Sent as they are, in place of `body`. */
  bytes?: Blob | FormData;
  headers?: Record<string, string>;
}

/** Gives the access token for a request; after a 401 a token that is not `refused`. Null: without one. */
export type TokenSource = (refused: string | null) => Promise<string | null>;

export class Rest {
  private readonly base: string;
  private readonly tokens: TokenSource;
  private readonly fetcher: typeof fetch;

  constructor(base: string, tokens: TokenSource, fetcher: typeof fetch) {
    this.base = base.replace(/\/$/, '');
    this.tokens = tokens;
    this.fetcher = fetcher;
  }

  get<P extends PathsWith<'get'>>(path: P, ...input: Arguments<InputOf<OperationOf<P, 'get'>>>): Promise<ReplyOf<OperationOf<P, 'get'>>> {
    return this.call('GET', path, input[0] as LooseInput);
  }

  post<P extends PathsWith<'post'>>(path: P, ...input: Arguments<InputOf<OperationOf<P, 'post'>>>): Promise<ReplyOf<OperationOf<P, 'post'>>> {
    return this.call('POST', path, input[0] as LooseInput);
  }

  put<P extends PathsWith<'put'>>(path: P, ...input: Arguments<InputOf<OperationOf<P, 'put'>>>): Promise<ReplyOf<OperationOf<P, 'put'>>> {
    return this.call('PUT', path, input[0] as LooseInput);
  }

  patch<P extends PathsWith<'patch'>>(path: P, ...input: Arguments<InputOf<OperationOf<P, 'patch'>>>): Promise<ReplyOf<OperationOf<P, 'patch'>>> {
    return this.call('PATCH', path, input[0] as LooseInput);
  }

  delete<P extends PathsWith<'delete'>>(path: P, ...input: Arguments<InputOf<OperationOf<P, 'delete'>>>): Promise<ReplyOf<OperationOf<P, 'delete'>>> {
    return this.call('DELETE', path, input[0] as LooseInput);
  }

  /** For routes that the generated types do not have. Throws `Problem` or `Unreachable`. */
  async call<T>(method: string, path: string, input: LooseInput = {}): Promise<T> {
    const answer = await this.response(method, path, input);
    return (answer.status === 204 ? undefined : await bodyOf(answer)) as T;
  }

  /** Bytes of a file, as the browser is to show or to save them. */
  async blob(path: string, input: LooseInput = {}): Promise<Blob> {
    const answer = await this.response('GET', path, { ...input, headers: { accept: '*/*', ...input.headers } });
    try {
      return await answer.blob();
    } catch (error) {
      throw new Unreachable(error);
    }
  }

  /** The answer itself, where its headers or its bytes are wanted. */
  async response(method: string, path: string, input: LooseInput = {}): Promise<Response> {
    const token = await this.tokens(null);
    const first = await this.once(method, path, input, token);
    const answer = first.status === 401 && token !== null ? await this.again(first, method, path, input, token) : first;
    if (!answer.ok) throw await problemOf(answer);
    return answer;
  }

  /** An access token that was refused is renewed once. */
  private async again(refused: Response, method: string, path: string, input: LooseInput, token: string): Promise<Response> {
    const renewed = await this.tokens(token);
    return renewed === null || renewed === token ? refused : this.once(method, path, input, renewed);
  }

  async once(method: string, path: string, input: LooseInput, token: string | null): Promise<Response> {
    const filled = path.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(String(input.path?.[name] ?? '')));
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(input.query ?? {})) {
      if (value !== undefined && value !== null) query.set(name, Array.isArray(value) ? value.join(',') : String(value));
    }
    const headers: Record<string, string> = { accept: 'application/json', ...input.headers };
    if (token !== null) headers['authorization'] = `Bearer ${token}`;
    const init: RequestInit = { method, headers, cache: 'no-store', credentials: 'omit', signal: AbortSignal.timeout(REQUEST_WAIT_MS) };
    if (input.bytes !== undefined) init.body = input.bytes;
    else if (input.body !== undefined) {
      headers['content-type'] = 'application/json';
      init.body = JSON.stringify(input.body);
    }
    const text = query.toString();
    try {
      return await this.fetcher(this.base + filled + (text && `?${text}`), init);
    } catch (error) {
      throw new Unreachable(error);
    }
  }
}

async function bodyOf(answer: Response): Promise<unknown> {
  try {
    return await answer.json();
  } catch (error) {
    throw new Unreachable(error);
  }
}

export async function problemOf(answer: Response): Promise<Problem> {
  const after = retryAfterMs(answer.headers.get('retry-after'), Date.now());
  let document: Partial<ProblemDocument> = {};
  try {
    const read: unknown = await answer.json();
    if (typeof read === 'object' && read !== null) document = read;
  } catch {
    // Whatever stands between here and the host answered.
  }
  const fallback: ProblemDocument = { type: 'about:blank', title: answer.statusText || 'Error', status: answer.status, code: `http_${answer.status}` };
  return new Problem({ ...fallback, ...document }, after);
}
