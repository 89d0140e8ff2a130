package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"torno.internal/host/internal/manual"
)

// helpTopics are what "torno help" explains beside the commands. They do nothing.
func helpTopics() []*cobra.Command {
	var out []*cobra.Command
	for _, t := range manual.Topics() {
		topic := &cobra.Command{Use: t.Name, Short: t.Summary, Long: t.Name + " - " + t.Summary + "\n\n" + t.Text}
		topic.SetUsageFunc(func(*cobra.Command) error { return nil })
		out = append(out, topic)
	}
	return out
}

// newManualCommand is for whoever packages torno, not for people who use it.
func newManualCommand(version string) *cobra.Command {
	var date string
	cmd := &cobra.Command{
		Use: "manual DIR", Short: "Write the manual pages into a directory", Args: exactArgs(1), Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := time.Parse(time.DateOnly, date); err != nil {
				return usageError{&hintError{fmt.Errorf("--date %q is no date", date), "as in 2006-01-02"}}
			}
			pages := manual.Commands(cmd.Root())
			for _, t := range manual.Topics() {
				pages = append(pages, t.Page())
			}
			for _, p := range pages {
				var b bytes.Buffer
				if err := p.Roff(&b, date, version); err != nil {
					return err
				}
				if err := os.WriteFile(filepath.Join(args[0], p.File()), b.Bytes(), 0o644); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&date, "date", time.Now().UTC().Format(time.DateOnly), "the date of the pages")
	return cmd
}
