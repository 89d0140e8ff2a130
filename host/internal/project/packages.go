package project

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Marks of what is no secret by name alone.
const (
	usesAWS      = "aws"
	usesPostgres = "postgres"
)

// A library is a package, and the secret that its programs use; a final "*" stands for any rest.
type library struct{ name, key string }

var npmLibraries = []library{
	{"@anthropic-ai/*", "ANTHROPIC_API_KEY"}, {"@ai-sdk/anthropic", "ANTHROPIC_API_KEY"},
	{"openai", "OPENAI_API_KEY"}, {"@openai/*", "OPENAI_API_KEY"}, {"@ai-sdk/openai", "OPENAI_API_KEY"},
	{"@google/genai", "GEMINI_API_KEY"}, {"@google/generative-ai", "GEMINI_API_KEY"}, {"@mistralai/*", "MISTRAL_API_KEY"},
	{"groq-sdk", "GROQ_API_KEY"}, {"cohere-ai", "COHERE_API_KEY"}, {"replicate", "REPLICATE_API_TOKEN"}, {"@huggingface/*", "HF_TOKEN"},
	{"@octokit/*", "GITHUB_TOKEN"}, {"octokit", "GITHUB_TOKEN"}, {"stripe", "STRIPE_SECRET_KEY"}, {"@slack/web-api", "SLACK_BOT_TOKEN"},
	{"@notionhq/client", "NOTION_TOKEN"}, {"@sendgrid/mail", "SENDGRID_API_KEY"}, {"resend", "RESEND_API_KEY"}, {"@linear/sdk", "LINEAR_API_KEY"},
	{"@aws-sdk/*", usesAWS}, {"aws-sdk", usesAWS}, {"pg", usesPostgres}, {"postgres", usesPostgres},
}

var pythonLibraries = []library{
	{"anthropic", "ANTHROPIC_API_KEY"}, {"langchain-anthropic", "ANTHROPIC_API_KEY"}, {"claude-agent-sdk", "ANTHROPIC_API_KEY"},
	{"openai", "OPENAI_API_KEY"}, {"langchain-openai", "OPENAI_API_KEY"}, {"openai-agents", "OPENAI_API_KEY"},
	{"google-genai", "GEMINI_API_KEY"}, {"google-generativeai", "GEMINI_API_KEY"}, {"mistralai", "MISTRAL_API_KEY"},
	{"groq", "GROQ_API_KEY"}, {"cohere", "COHERE_API_KEY"}, {"replicate", "REPLICATE_API_TOKEN"}, {"huggingface-hub", "HF_TOKEN"},
	{"pygithub", "GITHUB_TOKEN"}, {"stripe", "STRIPE_SECRET_KEY"}, {"slack-sdk", "SLACK_BOT_TOKEN"}, {"notion-client", "NOTION_TOKEN"},
	{"sendgrid", "SENDGRID_API_KEY"}, {"boto3", usesAWS}, {"aiobotocore", usesAWS},
	{"psycopg", usesPostgres}, {"psycopg2", usesPostgres}, {"psycopg2-binary", usesPostgres}, {"asyncpg", usesPostgres},
}

var goLibraries = []library{
	{"github.com/anthropics/anthropic-sdk-go", "ANTHROPIC_API_KEY"}, {"github.com/openai/openai-go*", "OPENAI_API_KEY"},
	{"github.com/sashabaranov/go-openai", "OPENAI_API_KEY"}, {"google.golang.org/genai", "GEMINI_API_KEY"},
	{"github.com/google/go-github/*", "GITHUB_TOKEN"}, {"github.com/stripe/stripe-go/*", "STRIPE_SECRET_KEY"}, {"github.com/slack-go/slack", "SLACK_BOT_TOKEN"},
	{"github.com/aws/aws-sdk-go*", usesAWS}, {"github.com/jackc/pgx/*", usesPostgres}, {"github.com/lib/pq", usesPostgres},
}

// libraries adds what the packages that a file names use.
func (f *finder) libraries(file string, names []string, known []library) {
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		for _, l := range known {
			prefix, any := strings.CutSuffix(l.name, "*")
			if name != l.name && !(any && strings.HasPrefix(name, prefix)) {
				continue
			}
			why := file + " depends on " + name
			switch l.key {
			case usesAWS:
				f.aws(why)
			case usesPostgres:
				f.key("DATABASE_URL", "DATABASE_URL=@address --as postgres", why)
			default:
				f.key(l.key, "", why)
			}
			break
		}
	}
}

// packageJSON reads what a program of Node.js depends on.
func packageJSON(f *finder) {
	text, ok := f.read("package.json")
	if !ok {
		return
	}
	var p struct {
		Dependencies, DevDependencies, OptionalDependencies, PeerDependencies map[string]any
	}
	if json.Unmarshal([]byte(text), &p) != nil {
		return
	}
	var names []string
	for _, m := range []map[string]any{p.Dependencies, p.DevDependencies, p.OptionalDependencies, p.PeerDependencies} {
		names = slices.AppendSeq(names, maps.Keys(m))
	}
	f.libraries("package.json", names, npmLibraries)
}

// requirement is the name at the beginning of a requirement (PEP 508), also in quotes as pyproject.toml has them, or as a key.
var requirement = regexp.MustCompile(`(?m)^[\s"'\[,]*([A-Za-z0-9][A-Za-z0-9._-]*)`)

// quotedRequirement finds those of one line.
var quotedRequirement = regexp.MustCompile(`["']([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*(?:[<>=!~;@ ][^"']*)?["']`)

// python reads what a program of Python depends on.
func python(f *finder) {
	for _, file := range append(f.names("requirements*.txt"), "pyproject.toml", "Pipfile") {
		text, ok := f.read(file)
		if !ok {
			continue
		}
		var names []string
		for _, pattern := range []*regexp.Regexp{requirement, quotedRequirement} {
			for _, m := range pattern.FindAllStringSubmatch(text, -1) {
				names = append(names, strings.ToLower(regexp.MustCompile(`[-_.]+`).ReplaceAllString(m[1], "-")))
			}
		}
		f.libraries(file, names, pythonLibraries)
	}
}

// goModule reads what a program of Go requires.
func goModule(f *finder) {
	text, ok := f.read("go.mod")
	if !ok {
		return
	}
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^\s*(?:require\s+)?([a-z0-9.-]+\.[a-z]+/\S+)\s+v\S+`).FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	f.libraries("go.mod", names, goLibraries)
}
