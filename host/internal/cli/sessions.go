package cli

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"torno.internal/host/internal/config"
	"torno.internal/protocol/control"
)

func newSessionsCommand() *cobra.Command {
	return group("sessions", "List, show, revoke and resume sessions",
		newSessionsListCommand(), newSessionsShowCommand(), newSessionsRevokeCommand(), newSessionsResumeCommand())
}

func newSessionsListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the sessions that are live", Args: exactArgs(0),
		Long: `List the sessions that are live. A session is one run of an agent: it has the
versions of its secrets and the policy of the moment at which it began.

No broker is started for this: where none runs there is no session to list.`,
		Example: "  torno sessions list\n  torno sessions list --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect()
			if err != nil {
				return err
			}
			var infos []control.SessionInfo
			if err := c.do(cmd.Context(), "GET", control.PathSessions, nil, &infos); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), infos)
			}
			if len(infos) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "no sessions")
				return nil
			}
			var rows [][]string
			for _, i := range infos {
				rows = append(rows, []string{i.ID, i.Agent, i.State, age(i.Created),
					strconv.FormatUint(i.Requests, 10), strconv.FormatUint(i.Refused, 10), i.Last})
			}
			return printTable(cmd.OutOrStdout(), []string{"ID", "AGENT", "STATE", "AGE", "REQUESTS", "REFUSED", "LAST"}, rows)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newSessionsShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show ID", Short: "Show all about one session", Args: exactArgs(1), ValidArgsFunction: completeSessions,
		Long: `Show all about one session: its command, the versions of the secrets that it
uses, what it asked for so far and what it was refused, what a person has
allowed for its whole time, its limits, the VM that it runs in and what that
said last on its console. Sessions that have ended can be shown
too.`,
		Example: "  torno sessions show 01m8588eq2zh04vw8qn948688n",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect()
			if err != nil {
				return err
			}
			var i control.SessionInfo
			if err := c.do(cmd.Context(), "GET", control.PathSession+args[0], nil, &i); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), i)
			}
			return printSession(cmd, &i)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printSession(cmd *cobra.Command, i *control.SessionInfo) error {
	var secrets []string
	for _, s := range i.Secrets {
		text := fmt.Sprintf("%s version %d", s.Name, s.Version)
		if s.Expose != control.ExposeNone {
			text += ", visible inside the VM"
		}
		if s.Source != "" {
			text += ", from " + s.Source
		}
		if s.Fetched != "" {
			text += " at " + s.Fetched
		}
		if s.Placeholder {
			text += ", placeholder"
		}
		if s.Rotation == control.RotationFollow {
			text += ", follows new versions"
		}
		if s.State != "" {
			text += ", " + string(s.State)
		}
		if s.Problem != "" {
			text += ", not there: " + s.Problem
		}
		secrets = append(secrets, text)
	}
	ended := "-"
	if i.Ended != nil {
		ended = i.Ended.Local().Format("2006-01-02 15:04:05")
	}
	command := strings.Join(i.Argv, " ")
	if len(i.Argv) == 0 {
		command = "the VM's own"
	}
	machine := "-"
	if m := i.Machine; m != nil {
		machine = fmt.Sprintf("%s by %s, image %s, kernel %s, %d MiB, %d vCPU", m.Kind, m.Accel, m.Image, m.Kernel, m.Memory>>20, m.CPUs)
	}
	rows := [][2]string{
		{"session", i.ID}, {"agent", i.Agent}, {"state", i.State}, {"isolation", string(i.Isolation)},
		{"machine", machine}, {"identity", i.Identity}, {"contained", i.Containment}, {"command", command},
		{"created", i.Created.Local().Format("2006-01-02 15:04:05") + ", " + age(i.Created) + " ago"}, {"ended", ended},
		{"secrets", strings.Join(secrets, "; ")},
		{"requests", fmt.Sprintf("%d, %d refused", i.Requests, i.Refused)},
		{"bytes", fmt.Sprintf("%d up, %d down", i.BytesUp, i.BytesDown)},
		{"limits", cmp.Or(boundsOf(i.Limits), "-")},
	}
	rows = append(rows, ruleLimitsOf(i.Limits)...)
	for _, g := range i.Grants {
		rows = append(rows, [2]string{"granted", g.ID + "  " + g.Rule})
	}
	rows = append(rows, [2]string{"streams", strconv.Itoa(i.Streams)}, [2]string{"last", i.Last})
	for _, row := range rows {
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%-10s %s\n", row[0], config.EscapeControl(row[1])); err != nil {
			return err
		}
	}
	return printConsole(cmd.OutOrStdout(), i.Console)
}

func newSessionsRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Short: "End a session at once and for ever", Args: exactArgs(1), ValidArgsFunction: completeSessions,
		Long: `End a session at once and for ever: what it has open is cut within a second, and
nothing that it asks is answered again. Other sessions go on. The command that
runs in it is not killed; it merely reaches nothing any more.`,
		Example: "  torno sessions revoke 01m8588eq2zh04vw8qn948688n",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect()
			if err != nil {
				return err
			}
			if err := c.do(cmd.Context(), "DELETE", control.PathSession+args[0], nil, nil); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: revoked\n", config.EscapeControl(args[0]))
			return nil
		},
	}
}

func newSessionsResumeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "resume ID", Short: "Let a suspended session go on", Args: exactArgs(1), ValidArgsFunction: completeSessions,
		Long: `Let a suspended session go on. A session is suspended when hosts repeat its
secrets in their answers again and again: the copies are masked, but an agent
that may ask as often as it likes could learn from where the masks stand. Look
at what it asked for first:

  torno audit tail`,
		Example: "  torno sessions resume 01m8588eq2zh04vw8qn948688n",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect()
			if err != nil {
				return err
			}
			if err := c.do(cmd.Context(), "POST", control.PathSession+args[0]+"/resume", nil, nil); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: resumed\n", config.EscapeControl(args[0]))
			return nil
		},
	}
}

func completeSessions(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	const none = cobra.ShellCompDirectiveNoFileComp
	c, err := connect()
	if err != nil || len(args) > 0 {
		return nil, none
	}
	var infos []control.SessionInfo
	if c.do(cmd.Context(), "GET", control.PathSessions, nil, &infos) != nil {
		return nil, none
	}
	var ids []string
	for _, i := range infos {
		ids = append(ids, i.ID+"\t"+i.Agent)
	}
	return ids, none
}
