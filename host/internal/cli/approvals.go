package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"torno.internal/host/internal/config"
	"torno.internal/protocol/control"
)

func newApprovalsCommand() *cobra.Command {
	return group("approvals", "Decide on requests that wait for a person",
		newApprovalsListCommand(), newApprovalsAllowCommand(), newApprovalsDenyCommand(), newApprovalsWithdrawCommand())
}

func newApprovalsListCommand() *cobra.Command {
	var watch, asJSON bool
	cmd := &cobra.Command{
		Use: "list [--watch]", Short: "Show the requests that wait", Args: exactArgs(0),
		Long: `Show the requests that wait for a person, because an ask rule matches them. One
that nobody decides on within five minutes ([limits] ask_seconds in broker.toml)
is denied.

You see the request as it would be sent, without its credential, and of its
content only type and length. Values of credentials in the query are masked, and
control characters are escaped.`,
		Example: "  torno approvals list\n  torno approvals list --watch",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := ensure(cmd.Context())
			if err != nil {
				return err
			}
			if watch {
				err = watchApprovals(cmd, c, asJSON)
				if cmd.Context().Err() != nil {
					return nil // ^C is how watching ends
				}
				return err
			}
			list, err := approvalsOf(cmd, c)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), list)
			}
			if len(list) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "nothing waits")
			}
			for i := range list {
				if err := printApproval(cmd.OutOrStdout(), &list[i]); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on with new ones until ^C")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON; with --watch one object a line")
	return cmd
}

func approvalsOf(cmd *cobra.Command, c *client) ([]control.Approval, error) {
	var list []control.Approval
	err := c.do(cmd.Context(), "GET", control.PathApprovals, nil, &list)
	return list, err
}

// watchApprovals prints what waits, and what comes to wait. It listens before it asks, so that nothing is missed between.
func watchApprovals(cmd *cobra.Command, c *client, asJSON bool) error {
	resp, err := c.open(cmd.Context(), "GET", control.PathEvents+"?"+url.Values{"kind": {string(control.EventApproval)}}.Encode(), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	list, err := approvalsOf(cmd, c)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	show := func(a *control.Approval) error {
		if seen[a.ID] {
			return nil
		}
		seen[a.ID] = true
		if asJSON {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(a)
		}
		return printApproval(cmd.OutOrStdout(), a)
	}
	for i := range list {
		if err := show(&list[i]); err != nil {
			return err
		}
	}
	return eachEvent(resp.Body, func(e *control.Event) error {
		switch {
		case e.Approval == nil:
			return nil
		case e.Type == "approval_waiting":
			return show(e.Approval)
		case asJSON:
			return nil
		}
		delete(seen, e.Approval.ID)
		by := ""
		if e.By != "" {
			by = " by " + e.By
		}
		_, err := fmt.Fprintln(cmd.OutOrStdout(), config.EscapeControl(fmt.Sprintf("%s  %s%s", e.Approval.ID, e.Reason, by)))
		return err
	})
}

// eachEvent calls f with every event of a stream until that ends. It is an error if the broker cut it.
func eachEvent(r io.Reader, f func(*control.Event) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e control.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("event: %w", err)
		}
		if e.Type == control.EventCut {
			return &hintError{errors.New("the broker cut the stream of events: " + e.Reason), "start again"}
		}
		if err := f(&e); err != nil {
			return err
		}
	}
	return lines.Err()
}

// printApproval prints one request that waits. All of its text may be a workload's.
func printApproval(w io.Writer, a *control.Approval) error {
	target := a.Authority
	if a.Scheme != "" {
		target = a.Scheme + "://" + a.Authority + a.Path
	}
	more := ""
	if a.PathBytes > 0 {
		more = fmt.Sprintf("the path goes on: %d bytes in all", a.PathBytes)
	}
	content := a.ContentType
	if a.ContentLength != nil {
		content = fmt.Sprintf("%s %d bytes", a.ContentType, *a.ContentLength)
	}
	credential := "none"
	if a.Secret != "" {
		credential = fmt.Sprintf("%s version %d", a.Secret, a.Version)
	}
	left := max(0, time.Until(a.Expires)).Round(time.Second)
	if _, err := fmt.Fprintln(w, config.EscapeControl(fmt.Sprintf("%s  %s %s", a.ID, a.Method, target))); err != nil {
		return err
	}
	return printRows(w, "        ", [][2]string{
		{"attention", more}, {"or else", a.Also}, {"content", content}, {"credential", credential},
		{"agent", a.Agent + ", session " + a.Session}, {"asked by", a.List + " rule " + a.Rule},
		{"waits", fmt.Sprintf("%s, is denied in %v", age(a.Asked), left)}, {"--session", a.Grant},
	})
}

// printRows prints names and values, but for empty ones, below one another.
func printRows(w io.Writer, indent string, rows [][2]string) error {
	for _, row := range rows {
		if row[1] == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "%s%-11s %s\n", indent, row[0], config.EscapeControl(row[1])); err != nil {
			return err
		}
	}
	return nil
}

func newApprovalsAllowCommand() *cobra.Command {
	var session bool
	cmd := &cobra.Command{
		Use: "allow ID [--session]", Short: "Let a request go", Args: exactArgs(1), ValidArgsFunction: completeApprovals,
		Long: `Let a request go that waits, this once.

With --session, what the line "--session" of the list names is allowed for the
rest of the session: these methods, of this host, on these paths. Whatever else
the rule matches is still asked about. "torno sessions show" lists what was
allowed so, and "torno approvals withdraw" takes one back.`,
		Example: "  torno approvals allow k2v9qa\n  torno approvals allow k2v9qa --session",
		RunE: func(cmd *cobra.Command, args []string) error {
			return decideApproval(cmd, control.ApprovalDecision{ID: args[0], Allow: true, Session: session})
		},
	}
	cmd.Flags().BoolVar(&session, "session", false, "and what is like it, for the rest of the session")
	return cmd
}

func newApprovalsDenyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "deny ID", Short: "Refuse a request", Args: exactArgs(1), ValidArgsFunction: completeApprovals,
		Long: `Refuse a request that waits. The workload gets 403 with the reason ask_denied,
and may ask again.`,
		Example: "  torno approvals deny k2v9qa",
		RunE: func(cmd *cobra.Command, args []string) error {
			return decideApproval(cmd, control.ApprovalDecision{ID: args[0]})
		},
	}
}

func decideApproval(cmd *cobra.Command, d control.ApprovalDecision) error {
	c, err := connect()
	if err != nil {
		return err
	}
	var a control.Approval
	if err := c.do(cmd.Context(), "POST", control.PathApprovals, d, &a); err != nil {
		return err
	}
	what := "denied"
	switch {
	case d.Session:
		what = "allowed for the session: " + a.Grant
	case d.Allow:
		what = "allowed"
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), config.EscapeControl(d.ID+": "+what))
	return err
}

func completeApprovals(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	const none = cobra.ShellCompDirectiveNoFileComp
	c, err := connect()
	if err != nil || len(args) > 0 {
		return nil, none
	}
	list, err := approvalsOf(cmd, c)
	if err != nil {
		return nil, none
	}
	var ids []string
	for _, a := range list {
		ids = append(ids, a.ID+"\t"+config.EscapeControl(a.Agent+" "+a.Method+" "+a.Authority))
	}
	return ids, none
}
