package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"torno.internal/broker"
	"torno.internal/host/internal/config"
	"torno.internal/protocol/control"
)

// PluginExecCommand is the hidden command that becomes a plugin, and PluginExec what it does.
const PluginExecCommand = broker.PluginExecCommand

// PluginExec becomes a plugin. It returns only if it could not, with an exit status.
func PluginExec() int { return broker.ExecPlugin() }

func newPluginCommand() *cobra.Command {
	return group("plugin", "See and try plugins: sources of secrets, and signers", newPluginListCommand(), newPluginCheckCommand())
}

func newPluginListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the plugins that broker.toml declares", Args: exactArgs(0),
		Long: `List the plugins that broker.toml declares: what each is for, whether its program
is the one whose SHA-256 was declared (changed or missing, where it is not), whether
it runs, and what failed last.

A plugin is started when it is first needed, and stopped after ten minutes without
a call, so that one that is idle is not broken. One that failed is started again
after a while, at most a minute.`,
		Example: "  torno plugin list\n  torno plugin list --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := ensure(cmd.Context())
			if err != nil {
				return err
			}
			var infos []control.PluginInfo
			if err := c.do(cmd.Context(), "GET", control.PathPlugins, nil, &infos); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), infos)
			}
			return printPlugins(cmd, infos)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printPlugins(cmd *cobra.Command, infos []control.PluginInfo) error {
	if len(infos) == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), "no plugins; docs/plugins.md says how broker.toml declares one")
		return nil
	}
	rows := make([][]string, 0, len(infos))
	for _, i := range infos {
		version, last := "-", ""
		if i.Version > 0 {
			version = strconv.Itoa(i.Version)
		}
		if i.LastError != "" {
			last = fmt.Sprintf("%s ago: %s", age(i.LastTime), strings.TrimPrefix(i.LastError, "plugin "+i.Name+": "))
		}
		rows = append(rows, []string{i.Name, i.Kind, i.Binary, version, pluginState(&i, time.Now()), i.Path, last})
	}
	return printTable(cmd.OutOrStdout(), []string{"NAME", "KIND", "PROGRAM", "VERSION", "STATE", "PATH", "LAST ERROR"}, rows)
}

func pluginState(i *control.PluginInfo, now time.Time) string {
	switch i.State {
	case control.PluginRunning:
		return fmt.Sprintf("running, pid %d", i.PID)
	case control.PluginFailed:
		return "failed, again in " + lasting(i.Retry.Sub(now)+time.Second)
	}
	return i.State
}

func newPluginCheckCommand() *cobra.Command {
	var req control.PluginCheck
	var asJSON bool
	cmd := &cobra.Command{
		Use: "check NAME [--ref REF [--alg A]] | PATH", Short: "Try a plugin, and say what is wrong with it", Args: exactArgs(1),
		Long: `Try a plugin that broker.toml declares: start it apart from the one that serves,
confined in the same way, shake hands, configure it and, with --ref, fetch that
secret or, of a signer, sign with that key. Said is how far it got, what to do about it, and the
end of what the plugin wrote on its standard error, without the secrets that torno
knows. What was fetched is not shown.

With the PATH of a program nothing is started: printed is what broker.toml needs to
declare it.

Exit status: 1 where something is wrong.`,
		Example: `  torno plugin check vault
  torno plugin check vault --ref secret/data/app#key
  torno plugin check kms --ref alias/torno --alg ecdsa-p256-sha256
  torno plugin check /usr/libexec/torno/torno-plugin-vault`,
		ValidArgsFunction: completePlugins,
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.Contains(args[0], "/") {
				return declarePlugin(cmd, args[0], asJSON)
			}
			req.Name = args[0]
			c, err := ensure(cmd.Context())
			if err != nil {
				return err
			}
			var r control.PluginReport
			if err := c.do(cmd.Context(), "POST", control.PathPluginCheck, req, &r); err != nil {
				return err
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), r)
			} else {
				printPluginReport(cmd, &r)
			}
			if err == nil && !r.OK {
				err = &exitError{code: exitFailed}
			}
			return err
		},
	}
	cmd.Flags().StringVar(&req.Ref, "ref", "", "`secret` to fetch, or key to sign with, in the plugin's own words")
	cmd.Flags().StringVar(&req.Alg, "alg", "ed25519", "of a signer: `algorithm`, as RFC 9421 calls it")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	_ = cmd.RegisterFlagCompletionFunc("alg", cobra.FixedCompletions(control.MessageAlgs, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// printPluginReport prints what a check found.
func printPluginReport(cmd *cobra.Command, r *control.PluginReport) {
	out := cmd.OutOrStdout()
	for _, s := range r.Steps {
		mark := "ok  "
		if !s.OK {
			mark = "FAIL"
		}
		fmt.Fprintf(out, "%s  %-13s  %s\n", mark, s.What, config.EscapeControl(s.Detail))
		if s.Hint != "" {
			fmt.Fprintf(out, "      %-13s  %s\n", "hint:", escapeLines(s.Hint))
		}
	}
	if r.Output != "" {
		fmt.Fprintf(out, "\nwhat it wrote on standard error, at its end:\n%s\n", inset(escapeLines(r.Output)))
	}
}

func inset(s string) string { return "  " + strings.ReplaceAll(s, "\n", "\n  ") }

// declarePlugin prints what declares the program at path.
func declarePlugin(cmd *cobra.Command, path string, asJSON bool) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return err
	}
	sum := hex.EncodeToString(hash.Sum(nil))
	if asJSON {
		return printJSON(cmd.OutOrStdout(), control.Plugin{Kind: control.PluginSource, Path: path, SHA256: sum})
	}
	name := strings.TrimPrefix(filepath.Base(path), "torno-plugin-")
	if !control.ValidPlugin(name) {
		name = "my-plugin"
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "[plugins.%s]\nkind = %q   # or %q\npath = %q\nsha256 = %q\n", name, control.PluginSource, control.PluginSigner, path, sum)
	return err
}

// completePlugins completes the names of plugins.
func completePlugins(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	if strings.Contains(prefix, "/") {
		return nil, cobra.ShellCompDirectiveDefault
	}
	names, err := pluginNames(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func pluginNames(cmd *cobra.Command) ([]string, error) {
	c, err := connect()
	if err != nil {
		return nil, err
	}
	var infos []control.PluginInfo
	if err := c.do(cmd.Context(), "GET", control.PathPlugins, nil, &infos); err != nil {
		return nil, errors.New("no broker")
	}
	names := make([]string, 0, len(infos))
	for _, i := range infos {
		names = append(names, i.Name)
	}
	return names, nil
}
