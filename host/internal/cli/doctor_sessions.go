package cli

import (
	"context"
	"fmt"

	"torno.internal/protocol/control"
)

// checkSessions names the live sessions that are weaker than they look: told apart by their CID alone, or with
// a network card of their own.
func checkSessions(ctx context.Context, _ string) finding {
	c, err := connect()
	if err != nil {
		return fail(err, "")
	}
	var infos []control.SessionInfo
	if err := c.do(ctx, "GET", control.PathSessions, nil, &infos); err != nil {
		return ok("none: no broker runs")
	}
	weak := 0
	first := ""
	for _, i := range infos {
		if len(i.Weaknesses) > 0 {
			weak++
			if first == "" {
				first = fmt.Sprintf("%s (%s): %s", i.ID, i.Agent, i.Weaknesses[0])
			}
		}
	}
	if weak > 0 {
		return finding{State: "warn", Detail: fmt.Sprintf("%d of %d are weak; %s", weak, len(infos), first), Hint: "torno sessions show ID says how a session is told apart and contained"}
	}
	return ok("%d live", len(infos))
}
