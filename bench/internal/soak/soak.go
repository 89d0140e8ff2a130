// Package soak holds the broker to what is promised of it under load and in trouble: many sessions, kill -9 at any moment,
// long running, disks that are full, slow or broken, clocks that jump. It starts the real broker, with a real TLS
// upstream in this process, and speaks protocol/SPEC.md with it as guests do. Everything stays on the loopback and on Unix
// sockets, is bounded in count and time, and ends by itself.
package soak

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Options say what to do, and how much of it.
type Options struct {
	Torno    string        // the program, by its absolute path
	Sessions int           // that are registered at once
	Kills    int           // how often the broker is killed
	Churn    time.Duration // how long sessions and connections come and go
	Leak     bool          // sessions are leaked on purpose: what must be noticed
	SlowFS   string        // the program of .ci/tools/slowfs
	Faults   []string      // of a disk, by name; none: all
	SetClock bool          // this machine's clock may be set
	Settle   time.Duration // how long the broker is given to come to rest before its memory is read
	Only     []string      // names of parts; none: all
}

// parts are what is tried, one after the other, each with a broker of its own.
var parts = []struct {
	name string
	run  func(context.Context, *Options, *Report) error
}{
	{"sessions", sessions},
	{"kills", kills},
	{"churn", churning},
	{"disks", disks},
	{"second", second},
	{"clock", clocks},
}

// ErrMiss means that some figure is not as promised.
var ErrMiss = errors.New("not all is as promised: see MISS")

// Main is the subcommand: args are its flags, and r says what machine this is. It prints a table.
func Main(ctx context.Context, args []string, r Report) error {
	var o Options
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	bin := flags.String("bin", "bin", "`directory` of torno and torno-guest")
	only := flags.String("only", "", "do these `parts` alone, with commas between them: "+strings.Join(names, ", "))
	json := flags.String("json", "", "write what was found to `file` too")
	flags.IntVar(&o.Sessions, "sessions", 10_000, "how many sessions are registered at once")
	flags.IntVar(&o.Kills, "kills", 200, "how often the broker is killed")
	flags.DurationVar(&o.Churn, "for", 5*time.Minute, "how long sessions and connections come and go")
	flags.BoolVar(&o.Leak, "leak", false, "leak sessions on purpose, to see that it is noticed")
	flags.BoolVar(&o.SetClock, "set-clock", false, "set this machine's clock forward and back: for machines that are there for nothing else")
	flags.StringVar(&o.SlowFS, "slowfs", "", "`program` that .ci/tools/slowfs is built to; none: beside torno")
	flags.DurationVar(&o.Settle, "settle", 3*time.Minute, "how long the broker is given to come to rest before its memory is read")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *only != "" {
		o.Only = strings.Split(*only, ",")
	}
	if flags.NArg() > 0 || slices.ContainsFunc(o.Only, func(n string) bool { return !slices.Contains(names, n) }) {
		flags.Usage()
		return flag.ErrHelp
	}
	var err error
	if o.Torno, err = filepath.Abs(filepath.Join(*bin, "torno")); err != nil {
		return err
	}
	if o.SlowFS == "" {
		o.SlowFS = filepath.Join(filepath.Dir(o.Torno), "slowfs")
	}
	if _, err := os.Stat(o.Torno); err != nil {
		return fmt.Errorf("%w: make build puts it there", err)
	}
	err = Run(ctx, &o, &r)
	r.Write(os.Stdout)
	if *json != "" {
		err = errors.Join(err, r.WriteJSON(*json))
	}
	if err == nil && r.Misses() > 0 {
		err = ErrMiss
	}
	return err
}

// Run does what o says and adds what it finds to r, also where an error ends it.
func Run(ctx context.Context, o *Options, r *Report) error {
	began := time.Now()
	for _, p := range parts {
		if len(o.Only) > 0 && !slices.Contains(o.Only, p.name) {
			continue
		}
		fmt.Fprintln(os.Stderr, "soak:", p.name)
		if err := p.run(ctx, o, r); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	r.Seconds = time.Since(began).Seconds()
	return nil
}
