package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// options are the flags.
type options struct {
	bin     string
	rounds  int
	quick   bool
	only    string
	json    string
	profile string
}

func bench(ctx context.Context, args []string) error {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&o.bin, "bin", "bin", "`directory` of torno and torno-guest")
	flags.IntVar(&o.rounds, "rounds", 3, "how often everything is measured")
	flags.BoolVar(&o.quick, "quick", false, "measure little: within two minutes, and roughly")
	flags.StringVar(&o.only, "only", "", "measure this `name` alone: "+strings.Join(measurementNames(), ", "))
	flags.StringVar(&o.json, "json", "", "write what was measured to `file` too")
	flags.StringVar(&o.profile, "profile", "", "keep CPU profiles of guest and broker in `directory`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || o.rounds < 1 || o.only != "" && !slices.Contains(measurementNames(), o.only) {
		flags.Usage()
		return flag.ErrHelp
	}
	var err error
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return err
	}
	for _, name := range []string{"torno", "torno-guest"} {
		if _, err := os.Stat(filepath.Join(o.bin, name)); err != nil {
			return fmt.Errorf("%w: make build puts it there", err)
		}
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("reading the memory of the broker, which nobody may look into, needs root")
	}
	h, err := newHouse(ctx, o.bin)
	if err != nil {
		return err
	}
	defer h.stop()
	return h.measure(ctx, o)
}

func measurementNames() []string {
	var names []string
	for _, one := range measurements {
		names = append(names, one.name)
	}
	return names
}

// measure takes all figures and prints them.
func (h *house) measure(ctx context.Context, o options) error {
	began := time.Now()
	machine, load, err := surroundings()
	if err != nil {
		return err
	}
	var p profiler
	if o.only == "" || o.profile != "" {
		p = h.newProfiler(ctx, o)
	}
	m := &meter{size: fullSize, only: o.only, direct: h.direct(), figures: figures{}, idled: map[string]int64{}}
	if o.quick {
		m.size = quickSize
	}
	for round := range o.rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, o.rounds)
		if err := h.round(ctx, m, round); err != nil {
			return err
		}
	}
	r := newReport(m)
	r.Machine, r.Load = machine, load
	if o.only == "" || o.profile != "" {
		share, err := h.profiles(ctx, p)
		r.single(auditGoal, share, err)
	}
	if o.only == "" {
		for _, g := range goBenches {
			figures, err := g.run(ctx)
			r.addFigures(g.rows, figures, err)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.Seconds = time.Since(began).Seconds()
	r.write(os.Stdout)
	if o.json != "" {
		return r.writeJSON(o.json)
	}
	return nil
}

// round starts every subject afresh and measures all, in an order that turns from round to round.
func (h *house) round(ctx context.Context, m *meter, n int) error {
	starts := []func(context.Context) (*subject, error){
		h.startNginx, h.reverseProxy, func(ctx context.Context) (*subject, error) { return h.startTorno(ctx, h.bin) },
	}
	var subjects []*subject
	for i := range starts {
		s, err := starts[(i+n)%len(starts)](ctx)
		if err != nil {
			return err
		}
		defer s.stop()
		subjects = append(subjects, s)
	}
	return m.round(ctx, subjects)
}
