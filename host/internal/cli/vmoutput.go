package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"torno.internal/host/internal/config"
	"torno.internal/protocol"
)

// A vmOutput is what torno vm config prints.
type vmOutput struct {
	VMM       string   `json:"vmm"`
	Session   string   `json:"session,omitempty"`
	Socket    string   `json:"socket,omitempty"` // hybrid:///BASE, as it was registered
	Warnings  []string `json:"warnings,omitempty"`
	Config    any      `json:"config"`              // what the VMM reads
	Arguments []string `json:"arguments,omitempty"` // or is started with
}

func (o *vmOutput) print(cmd *cobra.Command, asJSON bool, socket string) error {
	if asJSON {
		return printJSON(cmd.OutOrStdout(), o)
	}
	for _, w := range o.Warnings {
		fmt.Fprintf(cmd.ErrOrStderr(), "torno: %s\n", config.EscapeControl(w))
	}
	if o.Session != "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "torno: session %s waits for its VM at %s_%d\n", o.Session, config.EscapeControl(socket), protocol.BrokerPort)
	}
	if o.VMM == firecracker {
		return printJSON(cmd.OutOrStdout(), o.Config)
	}
	_, err := io.WriteString(cmd.OutOrStdout(), cloudHypervisor+" "+shellQuote(o.Arguments)+"\n")
	return err
}

// shellQuote writes words so that a shell reads the same words.
func shellQuote(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = w
		if w == "" || strings.ContainsFunc(w, func(r rune) bool { return !strings.ContainsRune(plainInShell, r) }) {
			quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

const plainInShell = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=+,./:@%"
