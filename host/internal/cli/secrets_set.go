package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"torno.internal/protocol/control"
	"torno.internal/protocol/seal"
)

// A setting is what secrets set was told by flags. It goes with exactly one KEY.
type setting struct {
	hosts, headers []string
	scheme         string
	knownHosts     string // file
	expose         string
	rotation       string
	expires        string
	ifVersion      int // -1: whatever it is at
	replace        []string
	overlap        bool
	source         string // PLUGIN:REF, where it is kept; empty: here
	envFile        string // a .env file that the values are in; "-": standard input
}

func (s *setting) given() bool {
	return len(s.hosts)+len(s.headers) > 0 || s.scheme != "" || s.knownHosts != "" || s.expose != ""
}

func newSecretsSetCommand() *cobra.Command {
	var s setting
	var yes, asJSON bool
	cmd := &cobra.Command{
		Use:   "set AGENT KEY=VALUE… | KEY | KEY=- | KEY=@FILE | --from-env-file FILE [KEY…]",
		Short: "Set one or more secrets",
		Long: `Set one or more secrets, all or none.

  KEY=VALUE   the value as it stands: others can see it with ps while torno runs
  KEY         asks for the value, twice, without showing it
  KEY=-       reads the value from standard input
  KEY=@FILE   reads the value from a file

A final newline of an input or file is not part of the value. A value that is
"-" or begins with "@" goes in by prompt, standard input or file.

--from-env-file sets what a .env file holds, or the KEYs of it that are named:
it shows what it will do, without values, and asks; --yes is for scripts. What
programs read in different ways in such files is refused, with its line.

What a well-known name means, such as ANTHROPIC_API_KEY, is a preset: where the
secret goes and how. Any other needs --host, and says how with --header or --as;
a new value for it needs them no more. --as takes SCHEME[:NAME=VALUE,…], where
%2C is a comma: docs/schemes.md has a line for each.

  bearer                     a bearer token, which is what --host alone means
  basic[:user=U]             a password; without user the workload's own user
  basic:template={KEY}:      what user and password are made of
  git[:user=U]               bearer, and basic where git speaks HTTP
  query:name=N               a parameter of the query
  path:template=/bot{KEY}/   a part of the path
  cookie:name=N              a cookie
  client-cert                a key and its certificate in PEM, for TLS
  oauth2, refresh-token, jwt-bearer, token-exchange, github-app, google, azure,
  registry                   what access tokens are got with
  jwt                        a key that access tokens are signed with
  sigv4, rfc9421, hmac, azure-storage, jwt-request
                             what requests are signed with; it never leaves
  aws-role, aws-web-identity what temporary keys of AWS are got with, which sign
  ssh[:user=U]               a private key for SSH, without its passphrase: an
                             agent inside signs with it, and the hosts' keys are
                             sealed with it (--known-hosts)
  postgres[:user=U,…]        a password of PostgreSQL, or an address with one

Running sessions keep the version that they began with (--rotation pin), or take
the new one with their next request (follow), as the version that they use says.
With --expires requests are refused from then on, and what is open is cut; torno
secrets list and torno run warn from two weeks before. --if-version N sets it
only if it is at version N now, so that nobody's change is lost.

With --source the value is kept elsewhere, such as in Vault: what is sealed is
where. It is fetched when a session begins, and again as it changes there, by a
plugin that broker.toml declares (docs/plugins.md). Running sessions follow it,
unless --rotation says pin.

A secret marked with --expose env is not proxied but becomes an environment
variable inside the VM, visible to the agent's code.

Where a secret may go is sealed together with its value: nobody re-points it by
editing a file, and nobody reads it back, not even who set it.`,
		Example: `  torno secrets set my-agent ANTHROPIC_API_KEY
  torno secrets set my-agent ANTHROPIC_API_KEY=sk-ant-… OPENAI_API_KEY=sk-… DATABASE_URL=postgresql://…
  torno secrets set my-agent ACME_TOKEN=@token --host api.acme.example
  torno secrets set my-agent AWS_PROD=@keys --as sigv4:service=s3,region=eu-central-1 --host my-bucket.s3.eu-central-1.amazonaws.com
  torno secrets set my-agent CUSTOM_API_SECRET=- --host api.example.org --header "X-Custom-Auth: {CUSTOM_API_SECRET}"
  torno secrets set my-agent WIKI_PASSWORD --host wiki.example.org --as basic:user=me@example.org
  torno secrets set my-agent ACME_TOKEN --source vault:secret/data/acme#token --host api.acme.example
  torno secrets set my-agent --from-env-file .env
  torno secrets set my-agent --from-env-file .env ANTHROPIC_API_KEY OPENAI_API_KEY`,
		Args:              s.args,
		ValidArgsFunction: s.completeKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			if yes && s.envFile == "" {
				return usageError{errors.New("--yes goes with --from-env-file; nothing else asks")}
			}
			return setSecrets(cmd, args[0], args[1:], &s, yes, asJSON)
		},
	}
	s.flags(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "with --from-env-file: set without asking")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print what was set as JSON")
	return cmd
}

// flags adds the flags that describe a secret.
func (s *setting) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&s.hosts, "host", nil, "`host[:port]` that the secret may be sent to, over https unless --as says otherwise (repeat for more)")
	f.StringArrayVar(&s.headers, "header", nil, "field to put it into, as \"`Name: text {KEY} text`\" (repeat for more)")
	f.StringVar(&s.scheme, "as", "", "how it becomes a credential: `SCHEME[:NAME=VALUE,…]`")
	f.StringVar(&s.knownHosts, "known-hosts", "", "with --as ssh: `file` that has the hosts' keys (default ~/.ssh/known_hosts)")
	f.StringVar(&s.expose, "expose", "", "\"env\": an environment variable inside the VM instead")
	f.StringVar(&s.rotation, "rotation", "", "what running sessions do with a new version: pin (default) or follow")
	f.StringVar(&s.expires, "expires", "", "refuse its use from then on: `30d`, 12h, 2027-01-31")
	f.StringSliceVar(&s.replace, "placeholder-in", nil, "replace its placeholder in content: form, json")
	f.BoolVar(&s.overlap, "allow-exposed-overlap", false, "it may share bytes with what is visible inside the VM, and is not masked")
	f.IntVar(&s.ifVersion, "if-version", -1, "set it only if it is at version `N` now; 0: if it was never set")
	f.StringVar(&s.source, "source", "", "it is kept elsewhere: `PLUGIN:REF` has it (torno plugin list)")
	f.StringVar(&s.envFile, "from-env-file", "", "`file` with the values, one KEY=VALUE a line; - is standard input")
	_ = cmd.RegisterFlagCompletionFunc("rotation", cobra.FixedCompletions([]string{"pin", "follow"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("expose", cobra.FixedCompletions([]string{"env"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("source", completeSources)
	_ = cmd.RegisterFlagCompletionFunc("as", completeSchemes) // fails for an unknown flag
}

// args accepts an agent and keys; the file may name them.
func (s *setting) args(cmd *cobra.Command, args []string) error {
	if s.envFile != "" {
		return rangeArgs(1, -1)(cmd, args)
	}
	return rangeArgs(2, -1)(cmd, args)
}

// check checks what can be without asking anybody.
func (s *setting) check(agent string, args []string) error {
	if !control.ValidAgent(agent) {
		return usageError{&hintError{fmt.Errorf("%q is not an agent's name", agent), "a name is " + control.AgentGrammar}}
	}
	return s.checkCount(len(args))
}

// checkCount refuses flags that are about one secret where there are several.
func (s *setting) checkCount(secrets int) error {
	if (s.given() || s.ifVersion >= 0 || len(s.replace) > 0) && secrets > 1 {
		return usageError{&hintError{errors.New("--host, --header, --as, --expose, --placeholder-in and --if-version go with exactly one KEY"), "set the others with a command of their own"}}
	}
	return nil
}

func setSecrets(cmd *cobra.Command, agent string, args []string, s *setting, yes, asJSON bool) error {
	if err := s.check(agent, args); err != nil {
		return err
	}
	c, err := ensure(cmd.Context())
	if err != nil {
		return err
	}
	entries, err := collect(cmd, agent, args, s, func(e *entry) error { return e.describe(cmd, c, agent, s) })
	if err != nil {
		return err
	}
	defer wipeEntries(entries)
	if s.envFile != "" {
		if err := s.confirm(cmd, c, entries, yes); err != nil {
			return err
		}
	}
	infos, err := store(cmd.Context(), c, entries)
	if err != nil {
		return err
	}
	if asJSON {
		if err := printJSON(cmd.OutOrStdout(), infos); err != nil {
			return err
		}
	}
	announce(cmd, entries, asJSON)
	s.noteFile(cmd)
	return nil
}

// describe fills in what the secret is, as the broker knows it: by its preset, by what it was, by flags, or, on a
// terminal, by asking.
func (e *entry) describe(cmd *cobra.Command, c *client, agent string, s *setting) error {
	var presets []control.Preset
	if err := c.do(cmd.Context(), "GET", control.PathPresets+"?"+url.Values{"name": {e.key}}.Encode(), nil, &presets); err != nil {
		return err
	}
	e.begin(agent, s, presets)
	if !s.given() {
		if err := e.keepCustom(cmd.Context(), c); err != nil {
			return err
		}
	}
	return e.complete(cmd, s)
}

// begin fills in what the secret is by its preset, of which there is at most one.
func (e *entry) begin(agent string, s *setting, presets []control.Preset) {
	e.meta = control.Meta{Agent: agent, Name: e.key, Rotation: control.Rotation(s.rotation), By: setter(e.source), Source: s.source}
	if len(presets) > 0 {
		p := presets[0]
		e.prefixes = p.Prefix
		e.meta.Audience, e.meta.Inject, e.meta.Expose, e.meta.Preset = p.Audience, p.Inject, p.Expose, p.Name
	}
}

// complete fills in what flags say, or, on a terminal, a person.
func (e *entry) complete(cmd *cobra.Command, s *setting) error {
	if s.expose != "" {
		e.meta.Audience, e.meta.Inject, e.meta.Preset = nil, control.Injector{}, ""
		e.meta.Expose = control.Expose(s.expose)
	} else if s.given() {
		if err := e.fromFlags(s); err != nil {
			return usageError{err}
		}
	}
	if err := e.takeAddress(cmd); err != nil {
		return fmt.Errorf("%s: %w", e.key, err)
	}
	if len(e.meta.Audience) == 0 && e.meta.Expose == control.ExposeNone {
		if err := e.askHost(cmd, s); err != nil {
			return err
		}
	}
	if err := e.pinHosts(s.knownHosts); err != nil {
		return err
	}
	e.follow()
	e.setReplace(s.replace)
	e.meta.Overlap = s.overlap
	e.meta.Version, e.meta.Created, e.ifVersion = 1, time.Now(), s.ifVersion
	if s.expires != "" {
		var err error
		if e.meta.Expires, err = control.ParseExpiry(s.expires, e.meta.Created); err != nil {
			return usageError{&hintError{fmt.Errorf("--expires: %w", err), "30d, 12h, 2027-01-31 or 2027-01-31T18:00:00Z"}}
		}
	}
	if err := control.CheckMeta(e.meta); err != nil {
		return usageError{fmt.Errorf("%s: %w", e.key, err)}
	}
	return nil
}

// setReplace says where the secret's placeholder is replaced in content, if that is said anew.
func (e *entry) setReplace(places []string) {
	if len(places) == 0 {
		return
	}
	e.meta.Replace = nil
	for _, p := range slices.Sorted(slices.Values(places)) {
		e.meta.Replace = append(e.meta.Replace, control.Place(p))
	}
}

// keepCustom takes over what flags said when the secret was set before: a new value goes where the old
// one went, and running sessions do with it what they did. Presets are looked up afresh.
func (e *entry) keepCustom(ctx context.Context, c *client) error {
	var infos []control.SecretInfo
	if err := c.do(ctx, "GET", control.PathSecrets+"?"+url.Values{"agent": {e.meta.Agent}}.Encode(), nil, &infos); err != nil {
		return err
	}
	for _, i := range infos {
		if i.Name == e.key && !i.Missing && i.Broken == "" && i.Preset == "" {
			e.meta.Audience, e.meta.Inject, e.meta.Expose, e.meta.Preset = i.Audience, i.Inject, i.Expose, ""
			e.kept = true
		}
		if i.Name == e.key && !i.Missing && i.Broken == "" {
			e.meta.Replace, e.meta.Rotation = i.Replace, cmp.Or(e.meta.Rotation, i.Rotation)
		}
	}
	return nil
}

// askHost asks for the host that no preset and no flag named; without a terminal it says what to type. Nobody is asked
// about what merely stands in a file.
func (e *entry) askHost(cmd *cobra.Command, s *setting) error {
	if e.source == sourceEnvFile && !e.named {
		return errNoPreset
	}
	if isTerminal(os.Stdin) && e.source != sourceInput {
		host, err := ask(cmd, fmt.Sprintf("Host that %s may be sent to (such as api.example.org): ", e.key))
		if err != nil {
			return err
		}
		own := *s // the answer is about this secret alone
		own.hosts = []string{host}
		if err := e.fromFlags(&own); err != nil {
			return usageError{err}
		}
		return nil
	}
	return usageError{&hintError{
		fmt.Errorf("no preset knows %s: say where it may be sent", e.key),
		fmt.Sprintf("torno secrets set %s %s%s --host HOST", e.meta.Agent, e.shown(s), headerFlags(s)),
	}}
}

func headerFlags(s *setting) string {
	var b strings.Builder
	for _, h := range s.headers {
		fmt.Fprintf(&b, " --header %q", h)
	}
	return b.String()
}

// store seals the values to the broker's key and hands them over, all or none. If somebody set one of
// them meanwhile it tries once more. It returns what was set.
func store(ctx context.Context, c *client, entries []*entry) ([]control.SecretInfo, error) {
	var conflict error
	for range 2 {
		sealed, err := sealAll(ctx, c, entries)
		if err != nil {
			return nil, err
		}
		var infos []control.SecretInfo
		var e *control.Error
		err = c.do(ctx, "POST", control.PathSecrets, sealed, &infos)
		if !errors.As(err, &e) || e.Code != control.CodeConflict {
			return infos, err
		}
		conflict = err
	}
	return nil, conflict
}

func sealAll(ctx context.Context, c *client, entries []*entry) ([]control.SealedSecret, error) {
	var pk control.PublicKey
	if err := c.do(ctx, "GET", control.PathPublicKey, nil, &pk); err != nil {
		return nil, err
	}
	key, err := seal.ParsePublicKey(pk.Key)
	if err != nil {
		return nil, fmt.Errorf("the broker's public key: %w", err)
	}
	sealed := make([]control.SealedSecret, 0, len(entries))
	for _, e := range entries {
		if err := e.nextVersion(ctx, c); err != nil {
			return nil, err
		}
		var b []byte
		err := e.value.Use(func(v []byte) (err error) {
			b, err = key.Seal(v, control.AssociatedData(e.meta, pk.ID))
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("sealing %s: %w", e.key, err)
		}
		sealed = append(sealed, control.SealedSecret{Meta: e.meta, KeyID: pk.ID, Sealed: b})
	}
	return sealed, nil
}

// nextVersion asks which version this one will be.
func (e *entry) nextVersion(ctx context.Context, c *client) error {
	var next control.NextVersion
	query := url.Values{"agent": {e.meta.Agent}, "name": {e.key}}
	if err := c.do(ctx, "GET", control.PathNextVersion+"?"+query.Encode(), nil, &next); err != nil {
		return err
	}
	e.meta.Version = next.Version
	return e.checkVersion(next.Version - 1)
}

// announce says what was set, unless that has been said as JSON, and what everybody should know about it.
func announce(cmd *cobra.Command, entries []*entry, said bool) {
	out, notes := cmd.OutOrStdout(), cmd.ErrOrStderr()
	if said {
		out = io.Discard
	}
	visible := false
	for _, e := range entries {
		m := e.meta
		visible = visible || e.source == sourceArgument
		if m.Expose != control.ExposeNone {
			why := "--expose env"
			if m.Preset != "" {
				why = "preset; --host makes it a proxied secret"
			}
			fmt.Fprintf(out, "%s: visible inside the VM (%s)%s\n", e.key, why, fromWhere(m))
			continue
		}
		fmt.Fprintf(out, "%s: set, version %d, goes to %s as %s%s\n", e.key, m.Version, audienceOf(m), kindOf(m), fromWhere(m))
		if !m.Expires.IsZero() {
			fmt.Fprintf(out, "%s: expires %s\n", e.key, moment(m.Expires))
		}
		if m.Weak {
			fmt.Fprintf(notes, "%s: weak (fewer than 16 random bytes): outside the guarantee\n", e.key)
		}
	}
	if visible {
		fmt.Fprintln(notes, "note: ps could see the values given as arguments; KEY alone asks for one")
	}
}
