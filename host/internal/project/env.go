package project

import (
	"regexp"
	"strings"
)

// assignment is the beginning of a line of a file of variables. Its value is not looked at.
var assignment = regexp.MustCompile(`^\s*(?:export\s+)?([A-Z_][A-Z0-9_]*)\s*=`)

// credential are names that mean one.
var credential = regexp.MustCompile(`(?:_|^)(?:API_?KEY|SECRET_?KEY|ACCESS_KEY|TOKEN|SECRET|PASSWORD|PASSWD|PAT|DSN|WEBHOOK_URL)$|^[A-Z0-9_]*DATABASE_URL$|^PGPASSWORD$`)

// public are prefixes of what frameworks give to browsers, and what is no credential in spite of its name.
var public = regexp.MustCompile(`^(?:NEXT_PUBLIC|VITE|REACT_APP|PUBLIC|EXPO_PUBLIC|NUXT_PUBLIC)_|^(?:MAX|MIN|NUM)_|_PUBLIC_KEY$`)

// awsPair are the names of one credential of AWS.
var awsPair = regexp.MustCompile(`^AWS_(?:ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN)$`)

// envFiles reads which variables a project names.
func envFiles(f *finder) {
	for _, name := range append(f.names(".env*"), f.names("*.env")...) {
		text, ok := f.read(name)
		if !ok {
			continue
		}
		for line := range strings.Lines(text) {
			m := assignment.FindStringSubmatch(line)
			switch {
			case m == nil:
			case awsPair.MatchString(m[1]):
				f.aws(name + " names " + m[1])
			case credential.MatchString(m[1]) && !public.MatchString(m[1]):
				f.key(m[1], "", name+" names it")
			}
		}
	}
}

// awsName is what a credential of AWS is called, unless somebody calls it otherwise.
const awsName = "AWS"

func (f *finder) aws(why string) {
	f.key(awsName, "AWS=@keys --as sigv4 --host SERVICE.REGION.amazonaws.com", why)
}

// aws looks for what deploys to AWS.
func aws(f *finder) {
	for _, name := range []string{".aws", "cdk.json", "samconfig.toml", "serverless.yml", "serverless.yaml"} {
		if f.there(name) {
			f.aws(name + " is there")
		}
	}
	for _, name := range f.names("*.tf") {
		if text, ok := f.read(name); ok && regexp.MustCompile(`(?m)^\s*provider\s+"aws"`).MatchString(text) {
			f.aws(name + " has the provider aws")
		}
	}
}
