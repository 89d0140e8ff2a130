package cli

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/user"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"torno.internal/host/internal/config"
	"torno.internal/protocol/control"
)

func newSecretsHistoryCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "history AGENT KEY", Short: "List the versions of a secret, never their values", Args: exactArgs(2),
		Long: `List the versions of a secret, oldest first and never with their values: when
each was set and by what, whether it can still be used, when it expires, how
many requests it was used for and when last. --json says more.

  current     new sessions get it
  superseded  by a newer version; sessions that began with it may still use it
  expired     requests that would get it are refused
  revoked     its value is gone, and nobody gets it any more

What is counted is written every ten seconds: a crash may lose that much.`,
		Example:           "  torno secrets history my-agent ANTHROPIC_API_KEY",
		ValidArgsFunction: completeSecrets,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := ensure(cmd.Context())
			if err != nil {
				return err
			}
			query := url.Values{"agent": {args[0]}, "name": {args[1]}}
			var versions []control.SecretVersion
			if err := c.do(cmd.Context(), "GET", control.PathHistory+"?"+query.Encode(), nil, &versions); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), versions)
			}
			rows := make([][]string, 0, len(versions))
			for i := range versions {
				rows = append(rows, versionRow(&versions[i]))
			}
			return printTable(cmd.OutOrStdout(), []string{"VERSION", "STATE", "SET", "EXPIRES", "USES", "USED", "BY"}, rows)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func versionRow(v *control.SecretVersion) []string {
	state := string(v.State)
	if v.Weak {
		state += ", weak"
	}
	used, expires := "-", "-"
	if !v.LastUsed.IsZero() {
		used = age(v.LastUsed) + " ago"
	}
	if !v.Expires.IsZero() {
		expires = v.Expires.Local().Format(time.DateOnly)
	}
	return []string{strconv.Itoa(v.Version), state, moment(v.Created), expires, strconv.FormatUint(v.Uses, 10), used, cmp.Or(config.EscapeControl(v.By), "-")}
}

// moment says when something was, in local time, or that it never was.
func moment(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04")
}

func newSecretsRevokeCommand() *cobra.Command {
	var version int
	cmd := &cobra.Command{
		Use: "revoke AGENT KEY [--version N]", Short: "Destroy a secret's value and end its use at once", Args: exactArgs(2),
		Long: `Destroy the value of a secret, of every version or of one, and end its use at
once in all sessions: what they have open with it is cut within a second.
Requests that would get it are refused. Other than delete, revoke keeps what
was known about the secret, for torno secrets history.

Where the newest version is revoked no session falls back to an older one: set a
new value. Do not forget to revoke the key where it was issued: torno can stop
its use here, and nowhere else.`,
		Example:           "  torno secrets revoke my-agent ANTHROPIC_API_KEY\n  torno secrets revoke my-agent ANTHROPIC_API_KEY --version 2",
		ValidArgsFunction: completeSecrets,
		RunE: func(cmd *cobra.Command, args []string) error {
			query := url.Values{"agent": {args[0]}, "name": {args[1]}}
			if cmd.Flags().Changed("version") {
				if version < 1 {
					return usageError{fmt.Errorf("--version %d: versions count from 1", version)}
				}
				query.Set("version", strconv.Itoa(version))
			}
			c, err := ensure(cmd.Context())
			if err != nil {
				return err
			}
			var revoked []control.SecretVersion
			if err := c.do(cmd.Context(), "POST", control.PathRevoke+"?"+query.Encode(), nil, &revoked); err != nil {
				return err
			}
			for _, v := range revoked {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: version %d revoked\n", args[1], v.Version)
			}
			return nil
		},
	}
	cmd.Flags().IntVar(&version, "version", 0, "the one version to revoke (default: all)")
	return cmd
}

// setter says what sets a secret: who, and where the value comes from. It is sealed with the value.
func setter(from source) string {
	name := "uid " + strconv.Itoa(os.Getuid())
	if u, err := user.Current(); err == nil && len(u.Username) < control.MaxBy/2 && control.CheckBy(u.Username) == nil {
		name = u.Username
	}
	return name + ", by " + from.String()
}

// checkVersion refuses to set a secret that is not at the version that the person has seen.
func (e *entry) checkVersion(last int) error {
	if e.ifVersion < 0 || e.ifVersion == last {
		return nil
	}
	at := fmt.Sprintf("%s is at version %d, not %d: somebody has set it meanwhile", e.key, last, e.ifVersion)
	if last == 0 {
		at = e.key + " was never set"
	}
	return &hintError{errors.New(at + "; nothing was set"), fmt.Sprintf("torno secrets history %s %s", e.meta.Agent, e.key)}
}
