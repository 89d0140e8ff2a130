package cli

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"torno.internal/broker"
	"torno.internal/protocol/control"
	"torno.internal/protocol/seal"
)

// Types of PEM blocks (RFC 7468).
const (
	pemPublicKey = "TORNO PUBLIC KEY"
	pemSealed    = "TORNO SEALED SECRET"
)

// maxPEM bounds a file of PEM blocks, in bytes.
const maxPEM = 8 << 20

func newSecretsExportCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "export-public-key", Short: "Print the key that secrets are sealed to", Args: exactArgs(0),
		Long: `Print the broker's public key, to which torno secrets seal seals on another
machine. It is not secret; but who seals to another key seals for somebody else,
so compare its id there with what torno key show says here.`,
		Example: "  torno secrets export-public-key >broker.pub",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := ensure(cmd.Context())
			if err != nil {
				return err
			}
			var pk control.PublicKey
			if err := c.do(cmd.Context(), "GET", control.PathPublicKey, nil, &pk); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), pk)
			}
			return pem.Encode(cmd.OutOrStdout(), &pem.Block{Type: pemPublicKey, Headers: map[string]string{"Key-ID": pk.ID}, Bytes: pk.Key})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newSecretsSealCommand() *cobra.Command {
	var s setting
	var to string
	cmd := &cobra.Command{
		Use:   "seal --to FILE AGENT KEY=VALUE… | KEY | KEY=- | KEY=@FILE | --from-env-file FILE [KEY…]",
		Short: "Seal secrets on a machine without a broker",
		Long: `Seal secrets to a broker's public key (torno secrets export-public-key) on another
machine, and print what torno secrets import takes there. No broker is asked, and
nothing is kept here: who seals can't open again.

What is printed is text and no secret. The agent, the name, where the secret may
go and how, and the time are sealed together with each value: nobody changes them
on the way. Values and flags are as with torno secrets set; flags go with exactly
one KEY.`,
		Example: `  torno secrets seal --to broker.pub my-agent ANTHROPIC_API_KEY >sealed
  torno secrets seal --to broker.pub my-agent ACME_TOKEN=@token --host api.acme.example >sealed`,
		Args: s.args,
		RunE: func(cmd *cobra.Command, args []string) error {
			return sealSecrets(cmd, to, args[0], args[1:], &s)
		},
	}
	s.flags(cmd)
	cmd.Flags().StringVar(&to, "to", "", "`file` with the broker's public key")
	_ = cmd.MarkFlagRequired("to")
	return cmd
}

func sealSecrets(cmd *cobra.Command, to, agent string, args []string, s *setting) error {
	if err := s.check(agent, args); err != nil {
		return err
	}
	key, err := readPublicKey(to)
	if err != nil {
		return err
	}
	entries, err := collect(cmd, agent, args, s, func(e *entry) error {
		var presets []control.Preset
		if p, ok := broker.LookupPreset(e.key); ok {
			presets = append(presets, p)
		}
		e.begin(agent, s, presets)
		return e.complete(cmd, s)
	})
	if err != nil {
		return err
	}
	defer wipeEntries(entries)
	var out bytes.Buffer
	for _, e := range entries {
		if err := e.seal(&out, key); err != nil {
			return fmt.Errorf("sealing %s: %w", e.key, err)
		}
	}
	_, err = out.WriteTo(cmd.OutOrStdout())
	return err
}

// seal writes the entry, sealed as whichever version is next where it is imported, or as the one behind
// --if-version.
func (e *entry) seal(w io.Writer, key seal.PublicKey) error {
	e.meta.Version, e.meta.Created = e.ifVersion+1, time.Now() // 0: whichever is next
	s := control.SealedSecret{Meta: e.meta, KeyID: key.ID()}
	err := e.value.Use(func(v []byte) (err error) {
		s.Sealed, err = key.Seal(v, control.AssociatedData(s.Meta, s.KeyID))
		return err
	})
	if err != nil {
		return err
	}
	b, err := control.EncodeSealed(s)
	if err != nil {
		return err
	}
	return pem.Encode(w, &pem.Block{Type: pemSealed, Headers: map[string]string{"Agent": e.meta.Agent, "Name": e.meta.Name, "Key-ID": s.KeyID}, Bytes: b})
}

// readPublicKey reads what export-public-key printed.
func readPublicKey(path string) (seal.PublicKey, error) {
	blocks, err := readBlocks(path, pemPublicKey, nil)
	if err != nil {
		return seal.PublicKey{}, err
	}
	if len(blocks) != 1 {
		return seal.PublicKey{}, &hintError{fmt.Errorf("%s holds %d public keys, want one", path, len(blocks)), "torno secrets export-public-key prints it, where the broker runs"}
	}
	k, err := seal.ParsePublicKey(blocks[0])
	if err != nil {
		return seal.PublicKey{}, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// readBlocks reads the PEM blocks of a kind from a file, or from standard input for "-". Headers are for people:
// what counts is in the blocks.
func readBlocks(path, kind string, stdin io.Reader) ([][]byte, error) {
	in := stdin
	if path != "-" || stdin == nil {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxPEM+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxPEM {
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxPEM)
	}
	return parseBlocks(b, kind)
}

func parseBlocks(b []byte, kind string) ([][]byte, error) {
	var blocks [][]byte
	for {
		block, rest := pem.Decode(b)
		if block == nil {
			return blocks, nil
		}
		if block.Type != kind {
			return nil, fmt.Errorf("a %q stands where %q is wanted", block.Type, kind)
		}
		blocks, b = append(blocks, block.Bytes), rest
	}
}

func newSecretsImportCommand() *cobra.Command {
	var agent string
	var dry, asJSON bool
	cmd := &cobra.Command{
		Use: "import FILE|-", Short: "Import secrets that were sealed on another machine", Args: exactArgs(1),
		Long: `Import secrets that torno secrets seal sealed on another machine, all or none.
Each becomes the next version of its name.

What was changed on the way is refused, by name: the agent, the name, where the
secret may go and the time are sealed with the value. So is what was sealed to
another key, what is no newer than the version that is here or than its deletion
(so that nobody brings back what was replaced), and, with --agent, what was sealed
for another agent.`,
		Example: "  torno secrets import sealed\n  torno secrets import --agent my-agent --dry-run sealed",
		RunE: func(cmd *cobra.Command, args []string) error {
			sealed, err := readSealed(args[0], cmd.InOrStdin())
			if err != nil {
				return err
			}
			if dry {
				return printImported(cmd, metasOf(sealed), "is sealed for", asJSON)
			}
			c, err := ensure(cmd.Context())
			if err != nil {
				return err
			}
			var infos []control.SecretInfo
			if err := c.do(cmd.Context(), "POST", control.PathImport, control.Import{Agent: agent, Secrets: sealed}, &infos); err != nil {
				return err
			}
			return printImported(cmd, infos, "is imported for", asJSON)
		},
	}
	cmd.Flags().StringVar(&agent, "agent", "", "refuse what is for another `agent`")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only say what is in the file; it is not checked")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	_ = cmd.RegisterFlagCompletionFunc("agent", func(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		return completeAgents(cmd, nil, prefix)
	})
	return cmd
}

func readSealed(path string, stdin io.Reader) ([]control.SealedSecret, error) {
	blocks, err := readBlocks(path, pemSealed, stdin)
	if err != nil {
		return nil, err
	}
	if len(blocks) == 0 {
		return nil, &hintError{errors.New("no sealed secret in " + path), "torno secrets seal makes one"}
	}
	sealed := make([]control.SealedSecret, 0, len(blocks))
	for i, b := range blocks {
		s, err := control.DecodeSealed(b)
		if err != nil {
			return nil, fmt.Errorf("%s, block %d: %w", path, i+1, err)
		}
		sealed = append(sealed, s)
	}
	return sealed, nil
}

func metasOf(sealed []control.SealedSecret) []control.SecretInfo {
	infos := make([]control.SecretInfo, len(sealed))
	for i := range sealed {
		infos[i].Meta = sealed[i].Meta
	}
	return infos
}

func printImported(cmd *cobra.Command, infos []control.SecretInfo, what string, asJSON bool) error {
	if asJSON {
		return printJSON(cmd.OutOrStdout(), infos)
	}
	for _, i := range infos {
		version := ""
		if i.Version > 0 {
			version = fmt.Sprintf(", version %d", i.Version)
		}
		text := fmt.Sprintf("%s: %s agent %s%s, goes to %s as %s, sealed %s ago", i.Name, what, i.Agent, version, audienceOf(i.Meta), kindOf(i.Meta), age(i.Created))
		if _, err := fmt.Fprintln(cmd.OutOrStdout(), escapeLines(text)); err != nil {
			return err
		}
	}
	return nil
}
