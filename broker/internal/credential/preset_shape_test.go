package credential

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"torno.internal/broker/internal/policy"
	"torno.internal/protocol"
	"torno.internal/protocol/secret"
)

// shapes has for each service a request that its documentation shows, and the field that must go with it
// where the secret is "PREFIX-real".
var shapes = []struct{ key, request, want string }{
	{"ANTHROPIC_API_KEY", "POST https://api.anthropic.com/v1/messages", "x-api-key: PREFIX-real"},
	{"ANTHROPIC_API_KEY", "GET https://api.anthropic.com/api/claude_code/settings", "x-api-key: PREFIX-real"},
	{"CLAUDE_CODE_OAUTH_TOKEN", "POST https://api.anthropic.com/v1/messages?beta=true", "authorization: Bearer PREFIX-real"},
	{"OPENAI_API_KEY", "POST https://api.openai.com/v1/responses", "authorization: Bearer PREFIX-real"},
	{"CODEX_API_KEY", "GET https://api.openai.com/v1/responses", "authorization: Bearer PREFIX-real"},
	{"GEMINI_API_KEY", "POST https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:generateContent", "x-goog-api-key: PREFIX-real"},
	{"GOOGLE_API_KEY", "POST https://generativelanguage.googleapis.com/upload/v1beta/files", "x-goog-api-key: PREFIX-real"},
	{"GOOGLE_GENERATIVE_AI_API_KEY", "GET https://generativelanguage.googleapis.com/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent", "x-goog-api-key: PREFIX-real"},
	{"MISTRAL_API_KEY", "POST https://api.mistral.ai/v1/chat/completions", "authorization: Bearer PREFIX-real"},
	{"CODESTRAL_API_KEY", "POST https://codestral.mistral.ai/v1/fim/completions", "authorization: Bearer PREFIX-real"},
	{"COHERE_API_KEY", "POST https://api.cohere.com/v2/chat", "authorization: Bearer PREFIX-real"},
	{"CO_API_KEY", "POST https://api.cohere.com/v2/embed", "authorization: Bearer PREFIX-real"},
	{"XAI_API_KEY", "POST https://api.x.ai/v1/chat/completions", "authorization: Bearer PREFIX-real"},
	{"DEEPSEEK_API_KEY", "POST https://api.deepseek.com/chat/completions", "authorization: Bearer PREFIX-real"},
	{"PERPLEXITY_API_KEY", "POST https://api.perplexity.ai/chat/completions", "authorization: Bearer PREFIX-real"},
	{"PPLX_API_KEY", "POST https://api.perplexity.ai/search", "authorization: Bearer PREFIX-real"},
	{"VOYAGE_API_KEY", "POST https://api.voyageai.com/v1/embeddings", "authorization: Bearer PREFIX-real"},
	{"MOONSHOT_API_KEY", "POST https://api.moonshot.ai/v1/chat/completions", "authorization: Bearer PREFIX-real"},
	{"STABILITY_API_KEY", "POST https://api.stability.ai/v2beta/stable-image/generate/core", "authorization: Bearer PREFIX-real"},

	{"GROQ_API_KEY", "POST https://api.groq.com/openai/v1/chat/completions", "authorization: Bearer PREFIX-real"},
	{"TOGETHER_API_KEY", "POST https://api.together.xyz/v1/chat/completions", "authorization: Bearer PREFIX-real"},
	{"FIREWORKS_API_KEY", "POST https://api.fireworks.ai/inference/v1/chat/completions", "authorization: Bearer PREFIX-real"},
	{"OPENROUTER_API_KEY", "POST https://openrouter.ai/api/v1/chat/completions", "authorization: Bearer PREFIX-real"},
	{"REPLICATE_API_TOKEN", "POST https://api.replicate.com/v1/models/black-forest-labs/flux-schnell/predictions", "authorization: Bearer PREFIX-real"},
	{"HF_TOKEN", "GET https://huggingface.co/meta-llama/Llama-3.1-8B/resolve/main/config.json", "authorization: Bearer PREFIX-real"},
	{"HUGGING_FACE_HUB_TOKEN", "POST https://router.huggingface.co/v1/chat/completions", "authorization: Bearer PREFIX-real"},
	{"HUGGINGFACEHUB_API_TOKEN", "GET https://huggingface.co/api/whoami-v2", "authorization: Bearer PREFIX-real"},
	{"HUGGINGFACE_API_KEY", "POST https://router.huggingface.co/hf-inference/models/openai/whisper-large-v3", "authorization: Bearer PREFIX-real"},
	{"CEREBRAS_API_KEY", "POST https://api.cerebras.ai/v1/chat/completions", "authorization: Bearer PREFIX-real"},
	{"SAMBANOVA_API_KEY", "POST https://api.sambanova.ai/v1/chat/completions", "authorization: Bearer PREFIX-real"},
	{"NVIDIA_API_KEY", "POST https://integrate.api.nvidia.com/v1/chat/completions", "authorization: Bearer PREFIX-real"},
	{"DEEPINFRA_API_KEY", "POST https://api.deepinfra.com/v1/openai/chat/completions", "authorization: Bearer PREFIX-real"},
	{"DEEPINFRA_API_TOKEN", "POST https://api.deepinfra.com/v1/inference/BAAI/bge-large-en-v1.5", "authorization: Bearer PREFIX-real"},
	{"DEEPINFRA_TOKEN", "POST https://api.deepinfra.com/v1/openai/embeddings", "authorization: Bearer PREFIX-real"},
	{"FAL_KEY", "POST https://queue.fal.run/fal-ai/flux/dev", "authorization: Key PREFIX-real"},

	{"ELEVENLABS_API_KEY", "POST https://api.elevenlabs.io/v1/text-to-speech/21m00Tcm4TlvDq8ikWAM", "xi-api-key: PREFIX-real"},
	{"DEEPGRAM_API_KEY", "POST https://api.deepgram.com/v1/listen?model=nova-3", "authorization: Token PREFIX-real"},
	{"ASSEMBLYAI_API_KEY", "POST https://api.assemblyai.com/v2/transcript", "authorization: PREFIX-real"},

	{"BRAVE_API_KEY", "GET https://api.search.brave.com/res/v1/web/search?q=x", "x-subscription-token: PREFIX-real"},
	{"BRAVE_SEARCH_API_KEY", "GET https://api.search.brave.com/res/v1/news/search?q=x", "x-subscription-token: PREFIX-real"},
	{"TAVILY_API_KEY", "POST https://api.tavily.com/search", "authorization: Bearer PREFIX-real"},
	{"EXA_API_KEY", "POST https://api.exa.ai/search", "x-api-key: PREFIX-real"},
	{"FIRECRAWL_API_KEY", "POST https://api.firecrawl.dev/v2/scrape", "authorization: Bearer PREFIX-real"},
	{"JINA_API_KEY", "POST https://api.jina.ai/v1/embeddings", "authorization: Bearer PREFIX-real"},
	{"SERPER_API_KEY", "POST https://google.serper.dev/search", "x-api-key: PREFIX-real"},
	{"APIFY_TOKEN", "POST https://api.apify.com/v2/acts/apify~web-scraper/runs", "authorization: Bearer PREFIX-real"},
	{"APIFY_API_TOKEN", "GET https://api.apify.com/v2/datasets", "authorization: Bearer PREFIX-real"},
	{"LLAMA_CLOUD_API_KEY", "POST https://api.cloud.llamaindex.ai/api/v1/parsing/upload", "authorization: Bearer PREFIX-real"},

	{"GITHUB_TOKEN", "GET https://api.github.com/repos/octocat/hello-world/issues", "authorization: Bearer PREFIX-real"},
	{"GH_TOKEN", "POST https://uploads.github.com/repos/octocat/hello-world/releases/1/assets?name=x", "authorization: Bearer PREFIX-real"},
	{"GITHUB_TOKEN", "GET https://github.com/octocat/hello-world.git/info/refs?service=git-receive-pack", "authorization: Basic eC1hY2Nlc3MtdG9rZW46UFJFRklYLXJlYWw="},
	{"GITHUB_TOKEN", "POST https://github.com/octocat/hello-world/git-receive-pack", "authorization: Basic eC1hY2Nlc3MtdG9rZW46UFJFRklYLXJlYWw="},
	{"GITHUB_PERSONAL_ACCESS_TOKEN", "POST https://api.github.com/graphql", "authorization: Bearer PREFIX-real"},
	{"COPILOT_GITHUB_TOKEN", "POST https://api.githubcopilot.com/chat/completions", "authorization: Bearer PREFIX-real"},
	{"GITLAB_TOKEN", "GET https://gitlab.com/api/v4/projects/gitlab-org%2Fgitlab/issues", "private-token: PREFIX-real"},
	{"GITLAB_ACCESS_TOKEN", "GET https://gitlab.com/api/v4/user", "private-token: PREFIX-real"},
	{"GITLAB_PERSONAL_ACCESS_TOKEN", "POST https://gitlab.com/api/v4/projects/1/merge_requests", "private-token: PREFIX-real"},
	{"SENTRY_AUTH_TOKEN", "POST https://sentry.io/api/0/organizations/acme/releases/", "authorization: Bearer PREFIX-real"},
	{"LINEAR_API_KEY", "POST https://api.linear.app/graphql", "authorization: PREFIX-real"},
	{"CIRCLECI_TOKEN", "GET https://circleci.com/api/v2/me", "circle-token: PREFIX-real"},
	{"CIRCLE_TOKEN", "POST https://circleci.com/api/v2/project/gh/acme/app/pipeline", "circle-token: PREFIX-real"},
	{"BUILDKITE_API_TOKEN", "POST https://api.buildkite.com/v2/organizations/acme/pipelines/app/builds", "authorization: Bearer PREFIX-real"},
	{"SNYK_TOKEN", "GET https://api.snyk.io/rest/self?version=2024-10-15", "authorization: token PREFIX-real"},
	{"POSTMAN_API_KEY", "GET https://api.getpostman.com/collections", "x-api-key: PREFIX-real"},
	{"TFE_TOKEN", "GET https://app.terraform.io/api/v2/organizations/acme/workspaces", "authorization: Bearer PREFIX-real"},
	{"SHORTCUT_API_TOKEN", "GET https://api.app.shortcut.com/api/v3/stories/123", "shortcut-token: PREFIX-real"},

	{"CLOUDFLARE_API_TOKEN", "GET https://api.cloudflare.com/client/v4/user/tokens/verify", "authorization: Bearer PREFIX-real"},
	{"CF_API_TOKEN", "POST https://api.cloudflare.com/client/v4/zones/023e105f4ecef8ad9ca31a8372d0c353/dns_records", "authorization: Bearer PREFIX-real"},
	{"DIGITALOCEAN_TOKEN", "POST https://api.digitalocean.com/v2/droplets", "authorization: Bearer PREFIX-real"},
	{"DIGITALOCEAN_ACCESS_TOKEN", "GET https://api.digitalocean.com/v2/account", "authorization: Bearer PREFIX-real"},
	{"HCLOUD_TOKEN", "GET https://api.hetzner.cloud/v1/servers", "authorization: Bearer PREFIX-real"},
	{"LINODE_TOKEN", "POST https://api.linode.com/v4/linode/instances", "authorization: Bearer PREFIX-real"},
	{"LINODE_CLI_TOKEN", "GET https://api.linode.com/v4/profile", "authorization: Bearer PREFIX-real"},
	{"VULTR_API_KEY", "GET https://api.vultr.com/v2/account", "authorization: Bearer PREFIX-real"},
	{"TAILSCALE_API_KEY", "GET https://api.tailscale.com/api/v2/tailnet/-/devices", "authorization: Bearer PREFIX-real"},
	{"NGROK_API_KEY", "GET https://api.ngrok.com/endpoints", "authorization: Bearer PREFIX-real"},

	{"VERCEL_TOKEN", "POST https://api.vercel.com/v13/deployments", "authorization: Bearer PREFIX-real"},
	{"NETLIFY_AUTH_TOKEN", "POST https://api.netlify.com/api/v1/sites/site-id/deploys", "authorization: Bearer PREFIX-real"},
	{"HEROKU_API_KEY", "POST https://api.heroku.com/apps/example/builds", "authorization: Bearer PREFIX-real"},
	{"FLY_API_TOKEN", "POST https://api.machines.dev/v1/apps/my-app/machines", "authorization: Bearer PREFIX-real"},
	{"RENDER_API_KEY", "POST https://api.render.com/v1/services/srv-1/deploys", "authorization: Bearer PREFIX-real"},
	{"SUPABASE_ACCESS_TOKEN", "POST https://api.supabase.com/v1/projects/abcdefghijklmnopqrst/database/query", "authorization: Bearer PREFIX-real"},
	{"NEON_API_KEY", "GET https://console.neon.tech/api/v2/projects", "authorization: Bearer PREFIX-real"},

	{"SLACK_BOT_TOKEN", "POST https://slack.com/api/chat.postMessage", "authorization: Bearer PREFIX-real"},
	{"SLACK_TOKEN", "GET https://files.slack.com/files-pri/T024BE7LD-F024BERPE/image.png", "authorization: Bearer PREFIX-real"},
	{"SLACK_USER_TOKEN", "GET https://slack.com/api/search.messages?query=x", "authorization: Bearer PREFIX-real"},
	{"SLACK_APP_TOKEN", "POST https://slack.com/api/apps.connections.open", "authorization: Bearer PREFIX-real"},
	{"DISCORD_TOKEN", "POST https://discord.com/api/v10/channels/1/messages", "authorization: Bot PREFIX-real"},
	{"DISCORD_BOT_TOKEN", "GET https://discord.com/api/v10/users/@me", "authorization: Bot PREFIX-real"},
	{"NOTION_API_KEY", "POST https://api.notion.com/v1/pages", "authorization: Bearer PREFIX-real"},
	{"NOTION_TOKEN", "POST https://api.notion.com/v1/search", "authorization: Bearer PREFIX-real"},
	{"AIRTABLE_API_KEY", "GET https://api.airtable.com/v0/appXXXXXXXXXXXXXX/Table%201", "authorization: Bearer PREFIX-real"},
	{"AIRTABLE_PAT", "POST https://content.airtable.com/v0/appX/recX/fldX/uploadAttachment", "authorization: Bearer PREFIX-real"},
	{"AIRTABLE_TOKEN", "GET https://api.airtable.com/v0/meta/whoami", "authorization: Bearer PREFIX-real"},
	{"FIGMA_API_KEY", "GET https://api.figma.com/v1/files/abc", "x-figma-token: PREFIX-real"},
	{"FIGMA_TOKEN", "GET https://api.figma.com/v1/images/abc?ids=1:2", "x-figma-token: PREFIX-real"},
	{"FIGMA_ACCESS_TOKEN", "GET https://api.figma.com/v1/me", "x-figma-token: PREFIX-real"},
	{"HUBSPOT_ACCESS_TOKEN", "GET https://api.hubapi.com/crm/v3/objects/contacts", "authorization: Bearer PREFIX-real"},
	{"PRIVATE_APP_ACCESS_TOKEN", "POST https://api.hubapi.com/crm/v3/objects/contacts/search", "authorization: Bearer PREFIX-real"},
	{"INTERCOM_ACCESS_TOKEN", "GET https://api.intercom.io/me", "authorization: Bearer PREFIX-real"},
	{"ASANA_ACCESS_TOKEN", "POST https://app.asana.com/api/1.0/tasks", "authorization: Bearer PREFIX-real"},
	{"ASANA_PAT", "GET https://app.asana.com/api/1.0/users/me", "authorization: Bearer PREFIX-real"},
	{"CLICKUP_API_TOKEN", "GET https://api.clickup.com/api/v2/team", "authorization: PREFIX-real"},
	{"CLICKUP_API_KEY", "POST https://api.clickup.com/api/v2/list/1/task", "authorization: PREFIX-real"},
	{"TODOIST_API_TOKEN", "GET https://api.todoist.com/api/v1/tasks", "authorization: Bearer PREFIX-real"},
	{"TODOIST_API_KEY", "POST https://api.todoist.com/api/v1/sync", "authorization: Bearer PREFIX-real"},
	{"DROPBOX_ACCESS_TOKEN", "POST https://content.dropboxapi.com/2/files/download", "authorization: Bearer PREFIX-real"},
	{"CONTENTFUL_MANAGEMENT_TOKEN", "GET https://api.contentful.com/spaces/s/environments/master/entries", "authorization: Bearer PREFIX-real"},

	{"STRIPE_API_KEY", "POST https://api.stripe.com/v1/payment_intents", "authorization: Bearer PREFIX-real"},
	{"STRIPE_SECRET_KEY", "POST https://files.stripe.com/v1/files", "authorization: Bearer PREFIX-real"},
	{"SQUARE_ACCESS_TOKEN", "POST https://connect.squareup.com/v2/payments", "authorization: Bearer PREFIX-real"},
	{"SHIPPO_API_KEY", "POST https://api.goshippo.com/shipments/", "authorization: ShippoToken PREFIX-real"},
	{"CLERK_SECRET_KEY", "GET https://api.clerk.com/v1/users", "authorization: Bearer PREFIX-real"},
	{"SENDGRID_API_KEY", "POST https://api.sendgrid.com/v3/mail/send", "authorization: Bearer PREFIX-real"},
	{"RESEND_API_KEY", "POST https://api.resend.com/emails", "authorization: Bearer PREFIX-real"},
	{"POSTMARK_SERVER_TOKEN", "POST https://api.postmarkapp.com/email", "x-postmark-server-token: PREFIX-real"},
	{"POSTMARK_API_TOKEN", "POST https://api.postmarkapp.com/email/batch", "x-postmark-server-token: PREFIX-real"},
	{"BREVO_API_KEY", "POST https://api.brevo.com/v3/smtp/email", "api-key: PREFIX-real"},

	{"DD_API_KEY", "POST https://api.datadoghq.com/api/v2/series", "dd-api-key: PREFIX-real"},
	{"DATADOG_API_KEY", "POST https://http-intake.logs.datadoghq.com/api/v2/logs", "dd-api-key: PREFIX-real"},
	{"NEW_RELIC_API_KEY", "GET https://api.newrelic.com/v2/applications.json", "api-key: PREFIX-real"},
	{"NEW_RELIC_LICENSE_KEY", "POST https://log-api.newrelic.com/log/v1", "api-key: PREFIX-real"},
	{"PAGERDUTY_API_KEY", "GET https://api.pagerduty.com/incidents", "authorization: Token token=PREFIX-real"},
	{"PAGERDUTY_TOKEN", "GET https://api.pagerduty.com/services", "authorization: Token token=PREFIX-real"},
	{"PAGERDUTY_USER_API_KEY", "GET https://api.pagerduty.com/users/me", "authorization: Token token=PREFIX-real"},
	{"HONEYCOMB_API_KEY", "POST https://api.honeycomb.io/1/events/my-dataset", "x-honeycomb-team: PREFIX-real"},
	{"AXIOM_TOKEN", "POST https://api.axiom.co/v1/datasets/my-dataset/ingest", "authorization: Bearer PREFIX-real"},
	{"ROLLBAR_ACCESS_TOKEN", "POST https://api.rollbar.com/api/1/item/", "x-rollbar-access-token: PREFIX-real"},
	{"POSTHOG_PERSONAL_API_KEY", "POST https://us.posthog.com/api/projects/1/query/", "authorization: Bearer PREFIX-real"},
	{"LANGSMITH_API_KEY", "POST https://api.smith.langchain.com/runs/batch", "x-api-key: PREFIX-real"},
	{"LANGCHAIN_API_KEY", "GET https://api.smith.langchain.com/sessions", "x-api-key: PREFIX-real"},
	{"BRAINTRUST_API_KEY", "GET https://api.braintrust.dev/v1/project", "authorization: Bearer PREFIX-real"},
}

// TestPresetShapes drives each service's request the way a session's goes: the policy lets it pass, the
// secret is selected, its path gets it, and it stands in the one field that the service reads.
func TestPresetShapes(t *testing.T) {
	for _, tt := range shapes {
		p, ok := Lookup(tt.key)
		if !ok {
			t.Errorf("%s: no preset", tt.key)
			continue
		}
		if d := decide(t, policyOf(t, p), tt.request); d.Verdict != policy.Allow || d.List != policy.ListAudience {
			t.Errorf("%s: %s: %+v", tt.key, tt.request, d)
		}
		r := parseRequest(t, tt.request)
		paths, err := policy.ParsePaths(p.Paths)
		if err != nil || !paths.Cover(r.method, r.path) {
			t.Errorf("%s: %s goes without the secret (%v)", tt.key, tt.request, err)
		}
		set, err := NewSet([]Secret{{Meta: metaOf(p, tt.key), Value: secret.New([]byte("PREFIX-real"))}})
		if err != nil {
			t.Fatal(err)
		}
		use, err := pick(set, r.authority, "https", protocol.Fields{auth("Bearer own")}, "")
		if err != nil || use == nil {
			t.Errorf("%s: Select = %v, %v", tt.key, use, err)
			continue
		}
		fields, err := use.Fields(&protocol.Request{Method: r.method, Scheme: "https", Path: r.path})
		if diff := cmp.Diff([]string{tt.want}, sent(t, fields, err)); diff != "" {
			t.Errorf("%s: %s", tt.key, diff)
		}
		if name, _, _ := strings.Cut(tt.want, ":"); !use.Injector.Strip(name) || !use.Injector.Strip("Authorization") {
			t.Errorf("%s: what the workload sends stays beside %s", tt.key, name)
		}
	}
}

func TestEveryKeyHasAShape(t *testing.T) {
	shown := map[string]bool{}
	for _, tt := range shapes {
		shown[tt.key] = true
	}
	for _, p := range Presets() {
		for _, key := range p.Keys {
			if p.Expose == "" && !shown[key] {
				t.Errorf("preset %s: no request shows %s", p.Name, key)
			}
		}
	}
}

// TestPresetPathsGoWithout names what of an audience gets no credential.
func TestPresetPathsGoWithout(t *testing.T) {
	for key, r := range map[string]string{
		"ANTHROPIC_API_KEY":        "GET https://api.anthropic.com/",
		"GEMINI_API_KEY":           "POST https://generativelanguage.googleapis.com/$rpc/google.ai.generativelanguage.v1alpha.AuthTokenService/CreateToken",
		"GOOGLE_API_KEY":           "POST https://generativelanguage.googleapis.com/google.ai.generativelanguage.v1alpha.AuthTokenService/CreateToken",
		"OPENROUTER_API_KEY":       "GET https://openrouter.ai/settings/keys",
		"GITLAB_TOKEN":             "GET https://gitlab.com/-/user_settings/personal_access_tokens",
		"SENTRY_AUTH_TOKEN":        "GET https://sentry.io/settings/account/api/auth-tokens/",
		"CIRCLECI_TOKEN":           "POST https://circleci.com/graphql-unstable",
		"TFE_TOKEN":                "GET https://app.terraform.io/app/settings/tokens",
		"NEON_API_KEY":             "GET https://console.neon.tech/app/settings/api-keys",
		"SLACK_BOT_TOKEN":          "GET https://slack.com/signin",
		"DISCORD_TOKEN":            "GET https://discord.com/login",
		"ASANA_ACCESS_TOKEN":       "GET https://app.asana.com/0/my-apps",
		"POSTMARK_SERVER_TOKEN":    "GET https://api.postmarkapp.com/Server",
		"POSTHOG_PERSONAL_API_KEY": "GET https://us.posthog.com/settings/user-api-keys",
	} {
		p, _ := Lookup(key)
		paths, err := policy.ParsePaths(p.Paths)
		if q := parseRequest(t, r); err != nil || paths.Cover(q.method, q.path) {
			t.Errorf("%s: %s gets the secret (%v)", key, r, err)
		}
	}
}
