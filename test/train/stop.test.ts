import { afterEach, describe, expect, it, vi } from 'vitest';
import { StopRequest } from '../../src/train/stop.ts';

let request: StopRequest;
afterEach(() => {
  request.release();
  vi.restoreAllMocks();
});

/** What a signal does to the listeners of this process. */
function receive(signal: 'SIGINT' | 'SIGTERM'): void {
  process.emit(signal, signal);
}

describe('StopRequest', () => {
  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('%s is noted, announced, and gives the exit status that a shell expects', (signal, code) => {
    const said: string[] = [];
    request = new StopRequest((message) => said.push(message));
    expect([request.requested, request.exitCode]).toEqual([false, 0]);
    receive(signal);
    expect([request.requested, request.exitCode]).toEqual([true, code]);
    expect(said).toHaveLength(1);
    expect(said[0]).toContain(signal);
  });

  it('ends the process at the second signal', () => {
    const exit = vi.spyOn(process, 'exit').mockImplementation(() => undefined as never);
    request = new StopRequest(() => {});
    receive('SIGINT');
    expect(exit).not.toHaveBeenCalled();
    receive('SIGTERM');
    expect(exit).toHaveBeenCalledWith(143);
  });

  it('listens no more once released', () => {
    const before = process.listenerCount('SIGINT');
    request = new StopRequest(() => {});
    expect(process.listenerCount('SIGINT')).toBe(before + 1);
    request.release();
    expect(process.listenerCount('SIGINT')).toBe(before);
  });
});
