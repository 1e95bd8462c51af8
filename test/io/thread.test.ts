import { describe, expect, it } from 'vitest';
import { UserError } from '../../src/errors.ts';
import { packError, unpackError } from '../../src/io/thread.ts';

const crossed = (error: unknown): Error => unpackError(structuredClone(packError(error)));

describe('an error that crosses between threads', () => {
  it('stays the user error that it was', () => {
    const cause = new Error('EIO: read failed');
    for (const details of [{ what: 'w' }, { where: 'file', what: 'w', action: 'a' }, { what: 'w', cause }]) {
      const error = new UserError('file_corrupt', details);
      const copy = crossed(error) as UserError;
      expect(copy).toBeInstanceOf(UserError);
      const fields = ({ code, where, what, action, message, exitCode }: UserError) => [
        ...[code, where, what, action, message, exitCode],
      ];
      expect(fields(copy)).toEqual(fields(error));
      expect(copy.cause).toBe('cause' in details ? 'Error: EIO: read failed' : undefined);
    }
  });

  it('keeps message and stack when it is a defect', () => {
    const error = new TypeError('x is not a function');
    expect(crossed(error)).toMatchObject({ message: error.message, stack: error.stack });
    expect(crossed('thrown as text').message).toBe('thrown as text');
  });
});
