package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
	"torno.internal/tui"
)

func newTUICommand() *cobra.Command {
	o := tui.Options{}
	theme := string(tui.ThemeAuto)
	cmd := &cobra.Command{
		Use: "tui", Short: "Open the desk: secrets, sessions, requests, approvals and health", Args: exactArgs(0),
		Long: `Open the desk: secrets, sessions, requests, approvals and health on one screen.
It asks the broker that runs for you, waits for it when it is away, and starts
one if you say so. It needs 40 columns and 10 lines; from 120 columns on, details
stand beside each list.

Press ? for the keys. A value that you type or paste is shown nowhere: it is
sealed to the broker's key, as "torno secrets set" does.

--accessible is for screen readers: plain text, no box drawing, no pictures, and
nothing that changes by itself every second. NO_COLOR=1 goes without colours.`,
		Example: "  torno tui\n  torno tui --accessible",
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Theme = tui.Theme(theme)
			switch o.Theme {
			case tui.ThemeAuto, tui.ThemeDark, tui.ThemeLight:
			default:
				return usageError{fmt.Errorf("--theme %q is none of auto, dark, light", theme)}
			}
			if !isTerminal(os.Stdin) || !isTerminal(os.Stdout) {
				return &hintError{errors.New("the desk needs a terminal"), "torno audit tail -f, torno sessions list and torno secrets list print to files"}
			}
			c, err := connect()
			if err != nil {
				return err
			}
			o.Broker, o.Place, o.Start = desk{c}, c.socket, c.start
			return tui.Run(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&theme, "theme", theme, "what the terminal's background is: auto, dark or light")
	f.BoolVar(&o.Accessible, "accessible", false, "for screen readers")
	f.BoolVar(&o.NoMouse, "no-mouse", false, "leave the mouse to the terminal; m changes it")
	return cmd
}

// A desk asks the broker for the TUI.
type desk struct{ c *client }

func (d desk) Do(ctx context.Context, method, path string, in, out any) error {
	if path == control.PathHealth {
		h, err := d.c.health(ctx) // which looks whose state the broker keeps
		if errors.Is(err, errNoBroker) {
			return d.c.do(ctx, method, path, in, out) // which says why
		}
		if p, ok := out.(*control.Health); ok {
			*p = h
		}
		return err
	}
	return d.c.do(ctx, method, path, in, out)
}

func (d desk) Follow(ctx context.Context, path string) (io.ReadCloser, error) {
	resp, err := d.c.open(ctx, "GET", path, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

func (d desk) Set(ctx context.Context, m control.Meta, value secret.Value) (control.Meta, error) {
	m.By = setter(sourceDesk)
	e := &entry{key: m.Name, value: value, meta: m, ifVersion: -1}
	_, err := store(ctx, d.c, []*entry{e})
	return e.meta, err
}
