package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"torno.internal/protocol/control"
)

// Records calls f with every record of the audit in dir from since on and before until, as it stands; zero times bound
// nothing. A line is valid until f returns.
func Records(ctx context.Context, dir string, since, until time.Time, f func(line []byte, r control.AuditRecord) error) error {
	paths, err := segments(dir)
	if err != nil {
		return err
	}
	within := filter{AuditFilter: control.AuditFilter{Since: since, Until: until}}
	for _, path := range skip(paths, &within) {
		_, err := scanFrom(path, 0, func(line []byte) error {
			r, err := Decode(line)
			switch {
			case err != nil:
				return fmt.Errorf("%w (torno audit verify says more)", err)
			case ctx.Err() != nil:
				return ctx.Err()
			case within.tooEarly(r.Time) || within.tooLate(r.Time):
				return nil
			}
			return f(line, r)
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // deleted meanwhile
			return err
		}
	}
	return nil
}
