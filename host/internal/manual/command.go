package manual

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Commands returns the page of root and one for each of its commands. Hidden ones have none.
func Commands(root *cobra.Command) []Page {
	root.InitDefaultCompletionCmd()
	root.InitDefaultHelpCmd()
	pages := []Page{overview(root)}
	for _, c := range root.Commands() {
		if visible(c) && c.Name() != "help" {
			pages = append(pages, command(root, c))
		}
	}
	return pages
}

// visible reports whether c is a command that people see; topics are none.
func visible(c *cobra.Command) bool { return !c.Hidden && !c.IsAdditionalHelpTopicCommand() }

// overview is the page of torno itself.
func overview(root *cobra.Command) Page {
	p := Page{Name: root.Name(), Section: 1, Summary: lowerFirst(root.Short)}
	p.add("SYNOPSIS", block{kind: usage, tag: root.Name(), text: "COMMAND [options] [arguments]"})
	p.add("DESCRIPTION", without(blocks(root.Long), "Exit status: ", "Environment: ")...)
	var commands, topics []block
	also := []string{}
	for _, c := range root.Commands() {
		switch {
		case c.IsAdditionalHelpTopicCommand():
			topics = append(topics, block{kind: tagged, tag: c.Name(), text: c.Short + "\n"})
		case visible(c) && c.Name() != "help":
			commands = append(commands, block{kind: tagged, tag: c.CommandPath(), text: c.Short + "\n"})
			also = append(also, "torno-"+c.Name()+"(1)")
		}
	}
	p.add("COMMANDS", commands...)
	p.add("TOPICS", append([]block{{kind: prose, text: "torno help TOPIC prints them without man(1)."}}, topics...)...)
	p.add("EXAMPLES", block{kind: literal, text: overviewExample})
	p.add("ENVIRONMENT", variables("")...)
	p.add("FILES", files("")...)
	p.add("EXIT STATUS", exitBlocks(blocks(root.Long))...)
	p.add("SEE ALSO", block{kind: prose, text: strings.Join(append(also, topicNames()...), ",\n")})
	return p
}

const overviewExample = `torno secrets set my-agent ANTHROPIC_API_KEY
torno run --agent my-agent -- python3 agent.py
torno audit tail -f`

// command is the page of one command, with those below it.
func command(root, c *cobra.Command) Page {
	p := Page{Name: root.Name() + "-" + c.Name(), Section: 1, Summary: lowerFirst(c.Short)}
	leaves := runnable(c)
	var synopsis []block
	for _, l := range leaves {
		synopsis = append(synopsis, synopsisOf(l))
	}
	p.add("SYNOPSIS", synopsis...)
	p.add("DESCRIPTION", without(blocks(cmp.Or(c.Long, c.Short+".")), "Exit status: ")...)
	var exits, examples []block
	if len(leaves) == 1 && leaves[0] == c {
		p.add("OPTIONS", options(c)...)
	} else {
		p.parts = append(p.parts, part{title: "COMMANDS", level: 1})
		for _, l := range leaves {
			text := without(blocks(cmp.Or(l.Long, l.Short+".")), "Exit status: ")
			p.parts = append(p.parts, part{title: l.CommandPath(), level: 2, blocks: append(text, options(l)...)})
		}
	}
	for _, l := range leaves {
		for _, b := range exitBlocks(blocks(l.Long)) {
			if l != c {
				b.text = l.CommandPath() + ": " + b.text
			}
			exits = append(exits, b)
		}
		if l.Example != "" {
			examples = append(examples, blocks(l.Example)...)
		}
	}
	if len(exits) == 0 || c.HasSubCommands() {
		exits = append([]block{{kind: prose, text: "0 done, 1 failed, 2 wrong usage."}}, exits...)
	}
	p.add("EXAMPLES", joined(examples)...)
	p.add("ENVIRONMENT", variables(c.Name())...)
	p.add("FILES", files(c.Name())...)
	p.add("EXIT STATUS", exits...)
	p.add("SEE ALSO", block{kind: prose, text: strings.Join(append([]string{"torno(1)"}, topicNames()...), ",\n")})
	return p
}

func (p *Page) add(title string, blocks ...block) {
	if len(blocks) > 0 {
		p.parts = append(p.parts, part{title: title, level: 1, blocks: blocks})
	}
}

// runnable returns c if it does something itself, or the commands below it that do.
func runnable(c *cobra.Command) []*cobra.Command {
	if !c.HasSubCommands() {
		return []*cobra.Command{c}
	}
	var out []*cobra.Command
	for _, sub := range c.Commands() {
		if visible(sub) && sub.Name() != "help" {
			out = append(out, runnable(sub)...)
		}
	}
	return out
}

func synopsisOf(c *cobra.Command) block {
	rest := strings.TrimPrefix(c.UseLine(), c.CommandPath())
	return block{kind: usage, tag: c.CommandPath(), text: strings.TrimSpace(strings.ReplaceAll(rest, "[flags]", "[options]"))}
}

// options describes the flags of c, but for --help.
func options(c *cobra.Command) []block {
	var out []block
	c.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		kind, text := pflag.UnquoteUsage(f)
		tag := "--" + f.Name
		if f.Shorthand != "" {
			tag = "-" + f.Shorthand + ", " + tag
		}
		if kind != "" {
			tag += " " + kind
		}
		if def := f.DefValue; !slices.Contains([]string{"", "false", "0", "-1", "[]", "0s"}, def) {
			text += fmt.Sprintf(" (default %s)", def)
		}
		out = append(out, block{kind: tagged, tag: tag, text: text + "\n"})
	})
	return out
}

// joined returns examples as one block.
func joined(examples []block) []block {
	var text []string
	for _, e := range examples {
		text = append(text, e.text)
	}
	if len(text) == 0 {
		return nil
	}
	return []block{{kind: literal, text: strings.Join(text, "\n")}}
}

// without returns the blocks that begin with none of the words given.
func without(all []block, words ...string) []block {
	return slices.DeleteFunc(slices.Clone(all), func(b block) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(b.text, w) })
	})
}

var exitWords = regexp.MustCompile(`^Exit status:\s+`)

// exitBlocks returns what a command's text says of its exit status.
func exitBlocks(all []block) []block {
	var out []block
	for _, b := range all {
		if at := exitWords.FindStringIndex(b.text); at != nil {
			out = append(out, block{kind: prose, text: b.text[at[1]:]})
		}
	}
	return out
}

// lowerFirst begins a sentence small, unless its first word is all capitals, as in VMs.
func lowerFirst(s string) string {
	if len(s) > 1 && s[1] >= 'A' && s[1] <= 'Z' {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}
