package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"torno.internal/broker"
	"torno.internal/host/internal/awake"
	"torno.internal/host/internal/config"
	"torno.internal/protocol/control"
)

func newServeCommand(version string) *cobra.Command {
	var path, level string
	var idle time.Duration
	passphraseFD := -1
	cmd := &cobra.Command{
		Use:   "serve [--config broker.toml] [--idle-exit D] [--passphrase-fd N]",
		Short: "Run the broker",
		Long: `Run the broker: the service that keeps secrets, decides, calls upstreams and
records.

It serves until it is interrupted. Sessions outlive it: the next broker with the
same state takes them up again. "torno run" starts a broker by itself when none
runs; run one yourself, under a user of its own, where that matters.

Without --config it reads broker.toml in the state directory, if there is one.

SIGHUP, or "torno reload", has it read that file again. As a service of systemd
it takes over the control socket and says when it is ready: docs/systemd.md.

Where a passphrase protects the key (torno key protect) it is read from
--passphrase-fd, else from a credential of systemd named torno-passphrase, else
asked for on the terminal. Without any of these the broker comes up locked: it
says so to whoever asks and does nothing else, until "torno key unlock".`,
		Example: "  torno serve\n  torno serve --config /etc/torno/broker.toml --log debug",
		Args:    exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			awake.Ensure()
			var l slog.Level
			if err := l.UnmarshalText([]byte(level)); err != nil {
				return usageError{fmt.Errorf("--log %q: want debug, info, warn or error", level)}
			}
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: l}))
			c := broker.Config{IdleExit: idle, Version: version, Log: log, Passphrase: readPassphrase(cmd, passphraseFD)}
			return serve(cmd, c, path, idle == 0 && passphraseFD < 0)
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "the operator's `file`")
	cmd.Flags().DurationVar(&idle, "idle-exit", 0, "end after so long without sessions and requests (0: never)")
	cmd.Flags().IntVar(&passphraseFD, "passphrase-fd", -1, "`descriptor` to read the key's passphrase from")
	cmd.Flags().StringVar(&level, "log", "info", "what to log: debug, info, warn, error")
	return cmd
}

// serve runs a broker. mayWait says that it may wait for its passphrase where nobody can be asked.
func serve(cmd *cobra.Command, c broker.Config, path string, mayWait bool) error {
	var err error
	if c.StateDir, err = stateDir(); err != nil {
		return err
	}
	if c.RuntimeDir, err = runtimeDir(); err != nil {
		return err
	}
	if c.Operator, err = readOperator(path, c.StateDir); err != nil {
		return err
	}
	if err := broker.Harden(); err != nil {
		return err
	}
	c.Reread = func() (control.Config, error) { return readOperator(path, c.StateDir) }
	unit, err := joinUnit(&c)
	if err != nil {
		return err
	}
	defer unit.Close()
	if mayWait && mustWait(c.StateDir) {
		if c, err = unit.wait(cmd.Context(), c); errors.Is(err, context.Canceled) {
			return nil
		}
		if err != nil {
			return openHint(err)
		}
	}
	b, err := broker.Open(c)
	if err != nil {
		return openHint(err)
	}
	ctx, done := context.WithCancel(cmd.Context())
	kept := make(chan struct{})
	go func() { defer close(kept); unit.keep(ctx, b) }()
	err = b.Serve(ctx)
	unit.say(unit.Stopping())
	done()
	<-kept
	return errors.Join(err, b.Close())
}

// openHint says what to do about a broker that does not open its state.
func openHint(err error) error {
	var h *hintError
	hint := broker.Hint(err)
	switch {
	case errors.As(err, &h):
		return err
	case hint == "" && broker.BusyPID(err) != 0:
		hint = "one broker serves all: torno commands find it; TORNO_STATE names another directory"
	case hint == "":
		hint = "torno doctor looks for what is wrong"
	}
	return &hintError{err, hint}
}

// readOperator reads broker.toml: the file named, which must be there, or the one beside the state.
func readOperator(path, state string) (control.Config, error) {
	optional := path == ""
	if optional {
		path = filepath.Join(state, config.BrokerFile)
	}
	b, err := os.ReadFile(path)
	if optional && errors.Is(err, fs.ErrNotExist) {
		return control.Config{}, nil
	}
	if err != nil {
		return control.Config{}, err
	}
	return config.ParseBroker(path, b)
}
