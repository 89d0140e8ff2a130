package project

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// remote is the address of a remote in git's configuration.
var remote = regexp.MustCompile(`(?m)^\s*url\s*=\s*(\S+)\s*$`)

// repository is a path that is put into a rule.
var repository = regexp.MustCompile(`^[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)+$`)

// gitRemotes reads where the project is fetched from.
func gitRemotes(f *finder) {
	text, ok := f.read(".git/config")
	if !ok {
		return
	}
	for _, m := range remote.FindAllStringSubmatch(text, -1) {
		address := m[1]
		if u, err := url.Parse(address); err == nil && u.Host != "" {
			path := strings.Trim(u.Path, "/")
			switch {
			case !repository.MatchString(path) || strings.Contains(path, ".."):
			case u.Scheme == "https":
				f.fetched(u.Hostname(), path)
			case u.Scheme == "ssh":
				f.pushed(u.Hostname())
			}
		} else if _, rest, ok := strings.Cut(address, "@"); ok { // git@host:path
			host, _, _ := strings.Cut(rest, ":")
			f.pushed(host)
		}
	}
}

// fetched adds the rules for git over https: reading from one repository.
func (f *finder) fetched(host, path string) {
	why := "git's remote: to fetch from it"
	f.rule("GET", host, "/"+path+"/info/refs", why, false)
	f.rule("POST", host, "/"+path+"/git-upload-pack", why, false)
	if host == "github.com" {
		f.key("GITHUB_TOKEN", "", "git's remote is at github.com: to fetch what is private, and to push")
	}
}

// pushed adds the key for git over ssh.
func (f *finder) pushed(host string) {
	if regexp.MustCompile(`^[a-z0-9.-]+$`).MatchString(host) {
		f.key("DEPLOY_KEY", "DEPLOY_KEY=@FILE --as ssh --host "+host, "git's remote is at "+host+", by ssh")
	}
}

// agents looks for what coding agents keep in a project.
func agents(f *finder) {
	for _, name := range []string{".claude", "CLAUDE.md", ".mcp.json"} {
		if f.there(name) {
			f.key("ANTHROPIC_API_KEY", "", name+" is of Claude Code")
		}
	}
	if f.there(".codex") {
		f.key("OPENAI_API_KEY", "", ".codex is of Codex")
	}
}

// postgresImage is an image that a file of compose names.
var postgresImage = regexp.MustCompile(`(?m)^\s*image:\s*["']?(?:[a-z0-9.-]+/)*(?:postgres|postgis|timescaledb)[:@"'\s]`)

// containers looks for what takes a container engine.
func containers(f *finder) {
	docker := slices.ContainsFunc([]string{"Dockerfile", "Containerfile", ".devcontainer"}, f.there)
	for _, name := range []string{"compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"} {
		text, ok := f.read(name)
		if !ok {
			continue
		}
		docker = true
		if postgresImage.MatchString(text) {
			f.note("%s runs PostgreSQL by itself: inside the VM no secret is needed to reach it", name)
		}
	}
	if docker {
		f.note(`containers are built and run in the VM with user = "root" and an image that has an engine: docs/images.md`)
	}
}

// origins are the addresses in files of locked packages, by file.
var origins = map[string]*regexp.Regexp{
	"package-lock.json": regexp.MustCompile(`"resolved":\s*"https://([a-z0-9.-]+)/`),
	"yarn.lock":         regexp.MustCompile(`(?m)^\s*resolved "https://([a-z0-9.-]+)/`),
	"uv.lock":           regexp.MustCompile(`(?:registry|url) = "https://([a-z0-9.-]+)/`),
	"poetry.lock":       regexp.MustCompile(`(?m)^url = "https://([a-z0-9.-]+)/`),
	"Pipfile":           regexp.MustCompile(`(?m)^url = "https://([a-z0-9.-]+)/`),
	".npmrc":            regexp.MustCompile(`(?m)registry\s*=\s*https://([a-z0-9.-]+)/`),
	"requirements.txt":  regexp.MustCompile(`(?m)^(?:-i|--index-url|--extra-index-url)[ =]https://([a-z0-9.-]+)/`),
}

// maxOrigins is how many places of packages a file may propose.
const maxOrigins = 4

// lockFiles reads where packages come from. Such files are long and seldom read, so a person has to say that it is wanted.
func lockFiles(f *finder) {
	var files []string
	for name := range origins {
		files = append(files, name)
	}
	slices.Sort(files)
	for _, name := range files {
		text, ok := f.read(name)
		if !ok {
			continue
		}
		var hosts []string
		for _, m := range origins[name].FindAllStringSubmatch(text, -1) {
			if !slices.Contains(hosts, m[1]) && len(hosts) < maxOrigins {
				hosts = append(hosts, m[1])
			}
		}
		for _, host := range hosts {
			f.rule("GET", host, "", name+": packages come from it", true)
		}
	}
}
