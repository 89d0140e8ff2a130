package credential

import (
	"slices"
	"strings"

	"torno.internal/protocol/control"
)

// codePresets are the services where code and the work on it are kept.
func codePresets() []control.Preset {
	return []control.Preset{
		withGit(github("github", "GitHub API", []string{"GITHUB_TOKEN", "GH_TOKEN", "GITHUB_PERSONAL_ACCESS_TOKEN"}, "https://uploads.github.com"), "github.com"),
		github("github-copilot", "GitHub Copilot", []string{"COPILOT_GITHUB_TOKEN"}, "https://api.githubcopilot.com",
			"https://api.individual.githubcopilot.com", "https://api.business.githubcopilot.com", "https://api.enterprise.githubcopilot.com"),
		gitlab(),
		{
			Name:        "sentry",
			Keys:        []string{"SENTRY_AUTH_TOKEN"},
			Service:     "Sentry",
			Audience:    []string{"https://sentry.io", "https://us.sentry.io", "https://de.sentry.io"},
			Inject:      asBearer(),
			Placeholder: "sntryu_*64",
			Prefix:      []string{"sntryu_", "sntrys_"},
			Paths:       []string{"/api/0/**"},
			Deny:        slices.Concat(sentryMinting("sentry.io"), sentryMinting("us.sentry.io"), sentryMinting("de.sentry.io")),
			Docs:        "https://docs.sentry.io/api/auth/",
		},
		{
			Name:        "linear",
			Keys:        []string{"LINEAR_API_KEY"},
			Service:     "Linear",
			Audience:    []string{"https://api.linear.app", "https://uploads.linear.app"},
			Inject:      intoHeader("authorization", hole),
			Placeholder: "lin_api_*40",
			Prefix:      []string{"lin_api_"},
			SDKNeedsKey: true,
			Deny:        on("api.linear.app", "POST /oauth/**"),
			Docs:        "https://linear.app/developers/graphql",
		},
		{
			Name:        "circleci",
			Keys:        []string{"CIRCLECI_TOKEN", "CIRCLE_TOKEN"},
			Service:     "CircleCI",
			Audience:    []string{"https://circleci.com"},
			Inject:      intoHeader("circle-token", hole),
			Placeholder: "CCIPAT_*64",
			Prefix:      []string{"CCIPAT_", "CCIPRJ_"},
			Paths:       []string{"/api/v2/**"},
			Deny:        on("circleci.com", "POST /api/v2/project/*/*/*/checkout-key**"),
			Docs:        "https://circleci.com/docs/api/v2/",
		},
		{
			Name:        "buildkite",
			Keys:        []string{"BUILDKITE_API_TOKEN"},
			Service:     "Buildkite",
			Audience:    []string{"https://api.buildkite.com"},
			Inject:      asBearer(),
			Placeholder: "bkua_*40",
			Prefix:      []string{"bkua_"},
			Deny:        on("api.buildkite.com", "/v2/organizations/*/clusters/*/tokens**", "POST,PUT,PATCH /v2/organizations/*/portals**"),
			Docs:        "https://buildkite.com/docs/apis/rest-api",
		},
		{
			Name:        "snyk",
			Keys:        []string{"SNYK_TOKEN"},
			Service:     "Snyk",
			Audience:    []string{"https://api.snyk.io"},
			Inject:      intoHeader("authorization", "token "+hole),
			Placeholder: "*36",
			Deny: on("api.snyk.io", "POST,PATCH /rest/orgs/*/service_accounts**", "POST,PATCH /rest/groups/*/service_accounts**",
				"POST,PATCH /rest/orgs/*/apps**", "POST /oauth2/**"),
			Docs: "https://docs.snyk.io/snyk-api/authentication-for-api",
		},
		{
			Name:        "postman",
			Keys:        []string{"POSTMAN_API_KEY"},
			Service:     "Postman API",
			Audience:    []string{"https://api.getpostman.com", "https://api.postman.com"},
			Inject:      intoHeader("x-api-key", hole),
			Placeholder: "PMAK-*59",
			Prefix:      []string{"PMAK-"},
			Docs:        "https://learning.postman.com/docs/developer/postman-api/authentication/",
		},
		{
			Name:        "terraform",
			Keys:        []string{"TFE_TOKEN"},
			Service:     "HCP Terraform",
			Audience:    []string{"https://app.terraform.io"},
			Inject:      asBearer(),
			Placeholder: "*90",
			Paths:       []string{"/api/v2/**"},
			Also:        []string{"GET,HEAD,PUT archivist.terraform.io"},
			Deny: on("app.terraform.io", "POST /api/v2/users/*/authentication-tokens**", "POST /api/v2/organizations/*/authentication-token**",
				"POST /api/v2/teams/*/authentication-token**", "POST /api/v2/agent-pools/*/authentication-tokens**"),
			Docs: "https://developer.hashicorp.com/terraform/cloud-docs/api-docs",
		},
		{
			Name:        "shortcut",
			Keys:        []string{"SHORTCUT_API_TOKEN"},
			Service:     "Shortcut",
			Audience:    []string{"https://api.app.shortcut.com"},
			Inject:      intoHeader("shortcut-token", hole),
			Placeholder: "*36",
			Docs:        "https://developer.shortcut.com/api/rest/v3",
		},
	}
}

func sentryMinting(host string) []string {
	return on(host, "/api/0/api-tokens**", "POST,PUT,PATCH /api/0/organizations/*/org-auth-tokens**",
		"/api/0/sentry-apps/*/api-tokens**", "POST /api/0/sentry-app-installations/*/authorizations**", "/api/0/api-applications**")
}

// withGit has the token of p go to git's paths at host too. Git LFS answers with credentials for the storage behind
// it, and a login is a credential of its own.
func withGit(p control.Preset, host string) control.Preset {
	p.Audience = append(p.Audience, "https://"+host)
	p.Inject = control.Injector{Scheme: control.SchemeGit, Params: []control.Param{{Name: "host", Value: host}}}
	p.Also = slices.DeleteFunc(p.Also, func(rule string) bool { return strings.Contains(rule, " "+host+"/") }) // reachable as it is
	p.Deny = append(p.Deny, on(host, "/*/*/info/lfs/**", "/login**", "/session**")...)
	return p
}

// github is a preset for GitHub's API and one more host. Archives come without a credential: the API's tokens
// are no bearer tokens on github.com.
func github(name, service string, keys []string, audience ...string) control.Preset {
	return control.Preset{
		Name:        name,
		Keys:        keys,
		Service:     service,
		Audience:    append([]string{"https://api.github.com"}, audience...),
		Inject:      asBearer(),
		Placeholder: "ghp_*36",
		Prefix:      []string{"ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"},
		Also: []string{
			"GET github.com/*/*/info/refs", "POST github.com/*/*/git-upload-pack",
			"GET,HEAD github.com/*/*/releases/**", "GET,HEAD github.com/*/*/archive/**", "GET,HEAD github.com/*/*/raw/**",
			"GET,HEAD codeload.github.com", "GET,HEAD objects.githubusercontent.com", "GET,HEAD release-assets.githubusercontent.com",
			"GET,HEAD raw.githubusercontent.com", "GET,HEAD *.actions.githubusercontent.com",
		},
		Deny: on("api.github.com",
			"POST /app/installations/*/access_tokens**", "POST /app-manifests/**", "POST,PUT,PATCH /applications/*/token**",
			"POST,PUT,PATCH /authorizations**", "POST /user/keys**", "POST /user/ssh_signing_keys**", "POST /user/gpg_keys**",
			"POST /repos/*/*/keys**", "POST /repositories/*/keys**",
			"POST /repos/*/*/actions/runners/*-token**", "POST /repositories/*/actions/runners/*-token**",
			"POST /orgs/*/actions/runners/*-token**", "POST /organizations/*/actions/runners/*-token**", "POST /enterprises/*/actions/runners/*-token**",
			"POST /repos/*/*/actions/runners/generate-jitconfig**", "POST /repositories/*/actions/runners/generate-jitconfig**",
			"POST /orgs/*/actions/runners/generate-jitconfig**", "POST /organizations/*/actions/runners/generate-jitconfig**",
			"POST /enterprises/*/actions/runners/generate-jitconfig**",
			"POST /orgs/*/personal-access-token-requests**", "POST /organizations/*/personal-access-token-requests**",
			"/copilot_internal/v2/token**"),
		Docs: "https://docs.github.com/en/rest/authentication",
	}
}

func gitlab() control.Preset {
	return control.Preset{
		Name:        "gitlab",
		Keys:        []string{"GITLAB_TOKEN", "GITLAB_ACCESS_TOKEN", "GITLAB_PERSONAL_ACCESS_TOKEN"},
		Service:     "GitLab.com",
		Audience:    []string{"https://gitlab.com"},
		Inject:      intoHeader("private-token", hole),
		Placeholder: "glpat-*32",
		Prefix:      []string{"glpat-"},
		Paths:       []string{"/api/v4/**"},
		Deny: on("gitlab.com",
			"/api/graphql**", // mutations make tokens, and rules don't see them
			"POST /api/v4/personal_access_tokens**", "POST /api/v4/user/personal_access_tokens**", "POST /api/v4/users/*/personal_access_tokens**",
			"POST /api/v4/users/*/impersonation_tokens**", "POST /api/v4/projects/*/access_tokens**", "POST /api/v4/groups/*/access_tokens**",
			"POST /api/v4/groups/*/service_accounts**", "POST /api/v4/projects/*/service_accounts**",
			"POST /api/v4/projects/*/deploy_tokens**", "POST /api/v4/groups/*/deploy_tokens**",
			"POST,PUT /api/v4/projects/*/deploy_keys**", "POST /api/v4/deploy_keys**", "POST /api/v4/user/keys**", "POST /api/v4/user/gpg_keys**",
			"POST /api/v4/runners**", "POST /api/v4/user/runners**", "POST /api/v4/projects/*/runners/reset_registration_token**",
			"POST /api/v4/groups/*/runners/reset_registration_token**", "/api/v4/projects/*/triggers**",
			"POST /api/v4/projects/*/cluster_agents/*/tokens**", "/api/v4/projects/*/variables**", "/api/v4/groups/*/variables**",
			"/api/v4/projects/*/secure_files/*/download**"),
		Docs: "https://docs.gitlab.com/api/rest/authentication/",
	}
}
