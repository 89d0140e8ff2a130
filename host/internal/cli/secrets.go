package cli

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"torno.internal/host/internal/config"
	"torno.internal/protocol/control"
)

func newSecretsCommand() *cobra.Command {
	return group("secrets", "Set, list, revoke and delete an agent's secrets",
		newSecretsSetCommand(), newSecretsListCommand(), newSecretsHistoryCommand(), newSecretsRevokeCommand(), newSecretsDeleteCommand(),
		newSecretsSealCommand(), newSecretsImportCommand(), newSecretsExportCommand())
}

func newSecretsListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list [AGENT]", Short: "List secrets by name, never by value", Args: rangeArgs(0, 1),
		Long: `List secrets by name, never by value: nobody can read a value back.

Without AGENT the secrets of all agents are listed. A secret that the agent's
trusted file declares and that is not set is listed as missing. One that is too
short for the guarantee is listed as weak, and one that was changed outside of
torno as broken: it is refused until it is set anew or a backup is restored. One
that expires within two weeks, has expired or was revoked is listed as that.`,
		Example:           "  torno secrets list\n  torno secrets list my-agent --json",
		ValidArgsFunction: completeAgents,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := ensure(cmd.Context())
			if err != nil {
				return err
			}
			infos, err := listSecrets(cmd.Context(), c, args)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), infos)
			}
			return printSecrets(cmd, infos)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// listSecrets asks for the secrets of an agent, or for everybody's, in parts.
func listSecrets(ctx context.Context, c *client, agent []string) ([]control.SecretInfo, error) {
	if len(agent) == 1 {
		var infos []control.SecretInfo
		err := c.do(ctx, "GET", control.PathSecrets+"?"+url.Values{"agent": agent}.Encode(), nil, &infos)
		return infos, err
	}
	infos, after := []control.SecretInfo{}, ""
	for {
		var part []control.SecretInfo
		query := url.Values{"after": {after}, "limit": {strconv.Itoa(control.MaxSecretsPage)}}
		if err := c.do(ctx, "GET", control.PathSecrets+"?"+query.Encode(), nil, &part); err != nil {
			return nil, err
		}
		infos = append(infos, part...)
		if len(part) < control.MaxSecretsPage {
			return infos, nil
		}
		last := part[len(part)-1]
		after = last.Agent + "/" + last.Name
	}
}

func printSecrets(cmd *cobra.Command, infos []control.SecretInfo) error {
	if len(infos) == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), "no secrets; set one: torno secrets set AGENT KEY")
		return nil
	}
	rows := make([][]string, 0, len(infos))
	for _, i := range infos {
		if i.Missing {
			rows = append(rows, []string{i.Agent, i.Name, "-", "missing", "", ""})
			continue
		}
		if i.Broken != "" {
			rows = append(rows, []string{i.Agent, cmp.Or(i.Name, "*"), "-", "broken", "", ""})
			fmt.Fprintln(cmd.ErrOrStderr(), "torno:", config.EscapeControl(i.Broken))
			continue
		}
		rows = append(rows, []string{i.Agent, i.Name, strconv.Itoa(i.Version), kindOf(i.Meta) + fromWhere(i.Meta) + stateOf(&i, time.Now()), audienceOf(i.Meta), age(i.Created)})
	}
	return printTable(cmd.OutOrStdout(), []string{"AGENT", "NAME", "VERSION", "KIND", "GOES TO", "AGE"}, rows)
}

// kindOf says in a word or two how the secret is used.
func kindOf(m control.Meta) string {
	kind := m.Inject.String()
	if m.Inject.Scheme == control.SchemeSSH || m.Inject.Param(control.ParamSign) != "" { // without the hosts' keys, or formulas, which are long
		kind = m.Inject.Scheme
	}
	if m.Inject.Scheme == control.SchemeHeader && len(m.Inject.Fields) > 0 {
		kind = m.Inject.Fields[0].Name
	}
	if m.Expose != control.ExposeNone {
		kind = "exposed"
	}
	if m.Rotation == control.RotationFollow {
		kind += ", follow"
	}
	if m.Weak {
		kind += ", weak"
	}
	if m.Overlap {
		kind += ", overlaps what is exposed"
	}
	return kind
}

// expiresSoon is how long before a secret expires the list says so.
const expiresSoon = 14 * 24 * time.Hour

// stateOf says what else a person should know about the secret's newest version.
func stateOf(i *control.SecretInfo, now time.Time) string {
	left := i.Expires.Sub(now)
	switch {
	case !i.Revoked.IsZero():
		return ", revoked"
	case i.Expires.IsZero():
	case left <= 0:
		return ", expired"
	case left < expiresSoon:
		return ", expires in " + lasting(left)
	}
	return ""
}

// audienceOf says where the secret goes.
func audienceOf(m control.Meta) string {
	if m.Expose != control.ExposeNone {
		return "inside the VM"
	}
	if len(m.Audience) == 0 {
		return "-"
	}
	_, first, _ := strings.Cut(m.Audience[0], "://")
	if len(m.Audience) == 1 {
		return first
	}
	return fmt.Sprintf("%s, %d more", first, len(m.Audience)-1)
}

// age says how long ago t was, in its largest unit.
func age(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return lasting(time.Since(t))
}

// lasting says how long d is, in its largest unit.
func lasting(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

func newSecretsDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use: "delete AGENT KEY", Short: "Delete a secret and end its use at once", Args: exactArgs(2),
		Long: `Delete a secret, every version of it, and end its use at once: sessions that
use it lose it, and what they have open with it is cut.`,
		Example:           "  torno secrets delete my-agent ANTHROPIC_API_KEY",
		ValidArgsFunction: completeSecrets,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := ensure(cmd.Context())
			if err != nil {
				return err
			}
			query := url.Values{"agent": {args[0]}, "name": {args[1]}}
			if err := c.do(cmd.Context(), "DELETE", control.PathSecrets+"?"+query.Encode(), nil, nil); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: deleted\n", args[1])
			return nil
		},
	}
}

// completeAgents completes agents that have secrets.
func completeAgents(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return complete(cmd, "", func(i control.SecretInfo) string { return i.Agent })
}

// completeSecrets completes an agent and then its secrets.
func completeSecrets(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return completeAgents(cmd, args, prefix)
	}
	return complete(cmd, args[0], func(i control.SecretInfo) string { return i.Name })
}

// completeSchemes completes the value of --as: a scheme, then its parameters.
func completeSchemes(_ *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	scheme, params, ok := strings.Cut(prefix, ":")
	if !ok {
		return control.Schemes(), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
	before := scheme + ":" + params[:strings.LastIndexByte(params, ',')+1]
	var words []string
	for _, name := range control.SchemeParams(scheme) {
		words = append(words, before+name+"=")
	}
	return words, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

func complete(cmd *cobra.Command, agent string, of func(control.SecretInfo) string) ([]string, cobra.ShellCompDirective) {
	const none = cobra.ShellCompDirectiveNoFileComp
	c, err := connect()
	if err != nil {
		return nil, none
	}
	path := control.PathSecrets
	if agent != "" {
		path += "?" + url.Values{"agent": {agent}}.Encode()
	}
	var infos []control.SecretInfo
	if c.do(cmd.Context(), "GET", path, nil, &infos) != nil {
		return nil, none
	}
	seen := map[string]bool{}
	var words []string
	for _, i := range infos {
		if w := of(i); !seen[w] {
			seen[w] = true
			words = append(words, w)
		}
	}
	return words, none
}
