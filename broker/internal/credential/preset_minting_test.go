package credential

import (
	"strings"
	"testing"

	"torno.internal/broker/internal/policy"
)

// minting has for each preset's rules a request that gives its sender another credential, and one close to
// it that doesn't.
const minting = `
anthropic
POST https://api.anthropic.com/api/oauth/claude_cli/create_api_key    GET https://api.anthropic.com/api/oauth/claude_cli/roles
POST https://api.anthropic.com/v1/oauth/token                         POST https://api.anthropic.com/v1/messages
POST https://api.anthropic.com/v1/organizations/invites               GET https://api.anthropic.com/v1/organizations/api_keys
POST https://api.anthropic.com/v1/organizations/api_keys/apikey_1     GET https://api.anthropic.com/v1/organizations/usage_report/messages
POST https://api.anthropic.com/v1/environments/bridge                 POST https://api.anthropic.com/v1/environments
POST https://api.anthropic.com/v1/code/sessions/cse_1/bridge          POST https://api.anthropic.com/v1/code/sessions/cse_1/archive
openai
POST https://api.openai.com/v1/realtime/client_secrets                GET https://api.openai.com/v1/realtime
POST https://api.openai.com/v1/realtime/sessions                      POST https://api.openai.com/v1/realtime/calls
POST https://api.openai.com/v1/realtime/transcription_sessions        POST https://api.openai.com/v1/audio/transcriptions
POST https://api.openai.com/v1/realtime/translations/client_secrets   POST https://api.openai.com/v1/audio/translations
POST https://api.openai.com/v1/chatkit/sessions                       GET https://api.openai.com/v1/chatkit/threads
POST https://api.openai.com/v1/organization/admin_api_keys            GET https://api.openai.com/v1/organization/admin_api_keys
POST https://api.openai.com/v1/organization/projects/p/service_accounts    GET https://api.openai.com/v1/organization/costs
POST https://api.openai.com/dashboard/user/api_keys                   GET https://api.openai.com/dashboard/billing/usage
POST https://api.openai.com/v1/dashboard/user/api_keys                GET https://api.openai.com/v1/dashboard/billing/usage
gemini
POST https://generativelanguage.googleapis.com/v1alpha/auth_tokens    POST https://generativelanguage.googleapis.com/v1alpha/models/x:generateContent
POST https://generativelanguage.googleapis.com/v1beta/auth_tokens     POST https://generativelanguage.googleapis.com/v1beta/cachedContents
POST https://generativelanguage.googleapis.com/v1alpha/authTokens     GET https://generativelanguage.googleapis.com/v1alpha/models
POST https://generativelanguage.googleapis.com/v1beta/authTokens      GET https://generativelanguage.googleapis.com/v1beta/models
xai
POST https://api.x.ai/v1/realtime/client_secrets                      GET https://api.x.ai/v1/realtime
perplexity
POST https://api.perplexity.ai/generate_auth_token                    POST https://api.perplexity.ai/revoke_auth_token
fireworks
POST https://api.fireworks.ai/v1/accounts/a/users/u/apiKeys           GET https://api.fireworks.ai/v1/accounts/a/users/u/apiKeys
GET https://api.fireworks.ai/v1/accounts/a/secrets/s                  GET https://api.fireworks.ai/v1/accounts/a/models
POST https://api.fireworks.ai/v1/accounts/a/users                     GET https://api.fireworks.ai/v1/accounts/a/users
openrouter
POST https://openrouter.ai/api/v1/keys                                GET https://openrouter.ai/api/v1/keys
POST https://openrouter.ai/api/v1/auth/keys                           GET https://openrouter.ai/api/v1/auth/key
POST https://openrouter.ai/api/v1/oauth/token                         GET https://openrouter.ai/api/v1/oauth/jwks
replicate
GET https://api.replicate.com/v1/webhooks/default/secret              GET https://api.replicate.com/v1/predictions/p
huggingface
POST https://huggingface.co/gpt2.git/info/lfs/objects/batch           GET https://huggingface.co/gpt2.git/info/refs
GET https://huggingface.co/api/models/gpt2/xet-write-token/main       GET https://huggingface.co/api/models/gpt2/revision/main
GET https://huggingface.co/api/buckets/owner/bucket/xet-write-token   GET https://huggingface.co/api/buckets/owner/bucket/xet-read-token
POST https://huggingface.co/owner/model.git/info/lfs/objects/batch    GET https://huggingface.co/owner/model.git/info/refs
POST https://huggingface.co/datasets/owner/data.git/info/lfs/objects/batch    POST https://huggingface.co/datasets/owner/data.git/git-upload-pack
GET https://huggingface.co/api/models/owner/model/xet-write-token/main    GET https://huggingface.co/api/models/owner/model/xet-read-token/main
GET https://huggingface.co/api/spaces/owner/space/jwt                 GET https://huggingface.co/api/spaces/owner/space/runtime
POST https://huggingface.co/oauth/token                               GET https://huggingface.co/oauth/userinfo
POST https://huggingface.co/api/settings/webhooks                     GET https://huggingface.co/api/settings/webhooks
deepinfra
POST https://api.deepinfra.com/v1/scoped-jwt                          GET https://api.deepinfra.com/v1/scoped-jwt
POST https://api.deepinfra.com/v1/api-tokens                          POST https://api.deepinfra.com/v1/openai/completions
POST https://api.deepinfra.com/v1/ssh_keys                            GET https://api.deepinfra.com/v1/ssh_keys
fal
POST https://rest.fal.ai/tokens/                                      POST https://rest.fal.ai/storage/upload/initiate
POST https://rest.fal.ai/storage/auth/token                           GET https://rest.fal.ai/tokens/
POST https://rest.alpha.fal.ai/tokens/                                POST https://rest.alpha.fal.ai/storage/upload/initiate
POST https://rest.alpha.fal.ai/storage/auth/token                     GET https://rest.alpha.fal.ai/storage
elevenlabs
POST https://api.elevenlabs.io/v1/single-use-token/realtime_scribe    POST https://api.elevenlabs.io/v1/speech-to-text
GET https://api.elevenlabs.io/v1/convai/conversation/get-signed-url   GET https://api.elevenlabs.io/v1/convai/conversations
GET https://api.elevenlabs.io/v1/convai/conversation/get_signed_url   GET https://api.elevenlabs.io/v1/convai/agents
GET https://api.elevenlabs.io/v1/convai/conversation/token            GET https://api.elevenlabs.io/v1/convai/conversations/c/audio
POST https://api.elevenlabs.io/v1/service-accounts/s/api-keys         GET https://api.elevenlabs.io/v1/service-accounts/s/api-keys
POST https://api.elevenlabs.io/v1/workspace/invites/add               GET https://api.elevenlabs.io/v1/workspace/groups/search
deepgram
POST https://api.deepgram.com/v1/projects/p/keys                      GET https://api.deepgram.com/v1/projects/p/keys
POST https://api.deepgram.com/v1/auth/grant                           GET https://api.deepgram.com/v1/auth/token
POST https://api.deepgram.com/v1/projects/p/invites                   GET https://api.deepgram.com/v1/projects/p/members
POST https://api.deepgram.com/v1/projects/p/self-hosted/distribution/credentials    GET https://api.deepgram.com/v1/projects/p/self-hosted/distribution/credentials
POST https://api.deepgram.com/v1/projects/p/onprem/distribution/credentials    GET https://api.deepgram.com/v1/projects/p/usage
assemblyai
POST https://api.assemblyai.com/v2/realtime/token                     POST https://api.assemblyai.com/v2/upload
GET https://streaming.assemblyai.com/v3/token?expires_in_seconds=60   GET https://streaming.assemblyai.com/v3/ws
exa
POST https://api.exa.ai/websets/v0/webhooks                           GET https://api.exa.ai/websets/v0/webhooks
apify
GET https://api.apify.com/v2/users/me                                 GET https://api.apify.com/v2/users/me/limits
llamacloud
POST https://api.cloud.llamaindex.ai/api/v1/api-keys                  GET https://api.cloud.llamaindex.ai/api/v1/api-keys
github
POST https://github.com/o/r.git/info/lfs/objects/batch                POST https://github.com/o/r.git/git-receive-pack
GET https://github.com/login/oauth/authorize                          GET https://github.com/o/r.git/info/refs
POST https://github.com/session                                       GET https://github.com/o/r/releases/download/v1/x
POST https://api.github.com/app/installations/1/access_tokens         GET https://api.github.com/app/installations/1
POST https://api.github.com/app-manifests/c/conversions               GET https://api.github.com/app
POST https://api.github.com/applications/c/token                      DELETE https://api.github.com/applications/c/token
PATCH https://api.github.com/applications/c/token                     DELETE https://api.github.com/applications/c/grant
PUT https://api.github.com/authorizations/clients/c                   GET https://api.github.com/authorizations
POST https://api.github.com/user/keys                                 GET https://api.github.com/user/keys
POST https://api.github.com/user/ssh_signing_keys                     GET https://api.github.com/user/ssh_signing_keys
POST https://api.github.com/user/gpg_keys                             GET https://api.github.com/user/gpg_keys
POST https://api.github.com/repos/o/r/keys                            GET https://api.github.com/repos/o/r/keys
POST https://api.github.com/repositories/1/keys                       GET https://api.github.com/repositories/1/keys
POST https://api.github.com/repos/o/r/actions/runners/registration-token    GET https://api.github.com/repos/o/r/actions/runners
POST https://api.github.com/repositories/1/actions/runners/remove-token     GET https://api.github.com/repositories/1/actions/runners
POST https://api.github.com/orgs/o/actions/runners/registration-token       POST https://api.github.com/orgs/o/actions/runner-groups
POST https://api.github.com/organizations/1/actions/runners/registration-token    GET https://api.github.com/organizations/1/actions/runners
POST https://api.github.com/enterprises/e/actions/runners/registration-token      GET https://api.github.com/enterprises/e/actions/runners
POST https://api.github.com/repos/o/r/actions/runners/generate-jitconfig    POST https://api.github.com/repos/o/r/actions/runners/1/labels
POST https://api.github.com/repositories/1/actions/runners/generate-jitconfig    GET https://api.github.com/repositories/1/actions/runners/1
POST https://api.github.com/orgs/o/actions/runners/generate-jitconfig       POST https://api.github.com/orgs/o/actions/runners/1/labels
POST https://api.github.com/organizations/1/actions/runners/generate-jitconfig    GET https://api.github.com/organizations/1/actions/runners/1
POST https://api.github.com/enterprises/e/actions/runners/generate-jitconfig      GET https://api.github.com/enterprises/e/actions/runners/1
POST https://api.github.com/orgs/o/personal-access-token-requests/1   GET https://api.github.com/orgs/o/personal-access-token-requests
POST https://api.github.com/organizations/1/personal-access-token-requests    GET https://api.github.com/organizations/1/repos
GET https://api.github.com/copilot_internal/v2/token                  GET https://api.github.com/copilot_internal/user
gitlab
POST https://gitlab.com/api/graphql                                   GET https://gitlab.com/api/v4/version
POST https://gitlab.com/api/v4/personal_access_tokens/self/rotate     GET https://gitlab.com/api/v4/personal_access_tokens/self
POST https://gitlab.com/api/v4/user/personal_access_tokens            GET https://gitlab.com/api/v4/user
POST https://gitlab.com/api/v4/users/1/personal_access_tokens         GET https://gitlab.com/api/v4/users/1/projects
POST https://gitlab.com/api/v4/users/1/impersonation_tokens           GET https://gitlab.com/api/v4/users/1/impersonation_tokens
POST https://gitlab.com/api/v4/projects/1/access_tokens               GET https://gitlab.com/api/v4/projects/1/access_tokens
POST https://gitlab.com/api/v4/groups/1/access_tokens/2/rotate        GET https://gitlab.com/api/v4/groups/1/access_tokens
POST https://gitlab.com/api/v4/groups/1/service_accounts/2/personal_access_tokens    GET https://gitlab.com/api/v4/groups/1/service_accounts
POST https://gitlab.com/api/v4/projects/1/service_accounts/2/personal_access_tokens  GET https://gitlab.com/api/v4/projects/1/service_accounts
POST https://gitlab.com/api/v4/projects/1/deploy_tokens               GET https://gitlab.com/api/v4/projects/1/deploy_tokens
POST https://gitlab.com/api/v4/groups/1/deploy_tokens                 GET https://gitlab.com/api/v4/groups/1/deploy_tokens
POST https://gitlab.com/api/v4/projects/1/deploy_keys                 GET https://gitlab.com/api/v4/projects/1/deploy_keys
POST https://gitlab.com/api/v4/deploy_keys                            POST https://gitlab.com/api/v4/projects/1/deployments
POST https://gitlab.com/api/v4/user/keys                              GET https://gitlab.com/api/v4/user/keys
POST https://gitlab.com/api/v4/user/gpg_keys                          GET https://gitlab.com/api/v4/user/gpg_keys
POST https://gitlab.com/api/v4/runners/reset_registration_token       GET https://gitlab.com/api/v4/runners
POST https://gitlab.com/api/v4/user/runners                           PUT https://gitlab.com/api/v4/runners/1
POST https://gitlab.com/api/v4/projects/1/runners/reset_registration_token    GET https://gitlab.com/api/v4/projects/1/runners
POST https://gitlab.com/api/v4/groups/1/runners/reset_registration_token      GET https://gitlab.com/api/v4/groups/1/runners
POST https://gitlab.com/api/v4/projects/1/triggers                    POST https://gitlab.com/api/v4/projects/1/trigger/pipeline
POST https://gitlab.com/api/v4/projects/1/cluster_agents/2/tokens     GET https://gitlab.com/api/v4/projects/1/cluster_agents/2/tokens
GET https://gitlab.com/api/v4/projects/1/variables/X                  GET https://gitlab.com/api/v4/projects/1/environments
GET https://gitlab.com/api/v4/groups/1/variables                      GET https://gitlab.com/api/v4/groups/1/projects
GET https://gitlab.com/api/v4/projects/1/secure_files/2/download      GET https://gitlab.com/api/v4/projects/1/secure_files
sentry
POST https://sentry.io/api/0/api-tokens/                              GET https://sentry.io/api/0/organizations/
POST https://sentry.io/api/0/organizations/o/org-auth-tokens/         GET https://sentry.io/api/0/organizations/o/org-auth-tokens/
POST https://sentry.io/api/0/sentry-apps/a/api-tokens/                GET https://sentry.io/api/0/sentry-apps/a/
POST https://sentry.io/api/0/sentry-app-installations/i/authorizations/    GET https://sentry.io/api/0/sentry-app-installations/i/
POST https://sentry.io/api/0/api-applications/                        GET https://sentry.io/api/0/projects/
POST https://us.sentry.io/api/0/api-tokens/                           GET https://us.sentry.io/api/0/organizations/
POST https://us.sentry.io/api/0/organizations/o/org-auth-tokens/      GET https://us.sentry.io/api/0/organizations/o/org-auth-tokens/
POST https://us.sentry.io/api/0/sentry-apps/a/api-tokens/             GET https://us.sentry.io/api/0/sentry-apps/a/
POST https://us.sentry.io/api/0/sentry-app-installations/i/authorizations/    GET https://us.sentry.io/api/0/sentry-app-installations/i/
POST https://us.sentry.io/api/0/api-applications/                     GET https://us.sentry.io/api/0/projects/
POST https://de.sentry.io/api/0/api-tokens/                           GET https://de.sentry.io/api/0/organizations/
POST https://de.sentry.io/api/0/organizations/o/org-auth-tokens/      GET https://de.sentry.io/api/0/organizations/o/org-auth-tokens/
POST https://de.sentry.io/api/0/sentry-apps/a/api-tokens/             GET https://de.sentry.io/api/0/sentry-apps/a/
POST https://de.sentry.io/api/0/sentry-app-installations/i/authorizations/    GET https://de.sentry.io/api/0/sentry-app-installations/i/
POST https://de.sentry.io/api/0/api-applications/                     GET https://de.sentry.io/api/0/projects/
linear
POST https://api.linear.app/oauth/token                               POST https://api.linear.app/graphql
circleci
POST https://circleci.com/api/v2/project/gh/o/r/checkout-key          GET https://circleci.com/api/v2/project/gh/o/r/checkout-key
buildkite
GET https://api.buildkite.com/v2/organizations/o/clusters/c/tokens    GET https://api.buildkite.com/v2/organizations/o/clusters/c/queues
POST https://api.buildkite.com/v2/organizations/o/portals             GET https://api.buildkite.com/v2/organizations/o/portals
snyk
POST https://api.snyk.io/rest/orgs/o/service_accounts                 GET https://api.snyk.io/rest/orgs/o/service_accounts
POST https://api.snyk.io/rest/groups/g/service_accounts/s/secrets     GET https://api.snyk.io/rest/groups/g/service_accounts
POST https://api.snyk.io/rest/orgs/o/apps/creations                   GET https://api.snyk.io/rest/orgs/o/apps/installs
POST https://api.snyk.io/oauth2/token                                 GET https://api.snyk.io/rest/orgs
terraform
POST https://app.terraform.io/api/v2/users/u/authentication-tokens    GET https://app.terraform.io/api/v2/users/u/authentication-tokens
POST https://app.terraform.io/api/v2/organizations/o/authentication-token    GET https://app.terraform.io/api/v2/organizations/o/workspaces
POST https://app.terraform.io/api/v2/teams/t/authentication-tokens    GET https://app.terraform.io/api/v2/teams/t
POST https://app.terraform.io/api/v2/agent-pools/a/authentication-tokens    GET https://app.terraform.io/api/v2/agent-pools/a
cloudflare
PUT https://api.cloudflare.com/client/v4/user/tokens/t/value          GET https://api.cloudflare.com/client/v4/user/tokens
POST https://api.cloudflare.com/client/v4/accounts/a/tokens           GET https://api.cloudflare.com/client/v4/accounts/a/tokens/verify
GET https://api.cloudflare.com/client/v4/user/service_keys            GET https://api.cloudflare.com/client/v4/user
POST https://api.cloudflare.com/client/v4/accounts/a/access/service_tokens/s/rotate    GET https://api.cloudflare.com/client/v4/accounts/a/access/service_tokens
POST https://api.cloudflare.com/client/v4/zones/z/access/service_tokens    GET https://api.cloudflare.com/client/v4/zones/z/access/apps
POST https://api.cloudflare.com/client/v4/accounts/a/cfd_tunnel       GET https://api.cloudflare.com/client/v4/accounts/a/cfd_tunnel
GET https://api.cloudflare.com/client/v4/accounts/a/cfd_tunnel/t/token     GET https://api.cloudflare.com/client/v4/accounts/a/cfd_tunnel/t/configurations
POST https://api.cloudflare.com/client/v4/accounts/a/cfd_tunnel/t/management    GET https://api.cloudflare.com/client/v4/accounts/a/cfd_tunnel/t/connections
POST https://api.cloudflare.com/client/v4/accounts/a/tunnels          GET https://api.cloudflare.com/client/v4/accounts/a/tunnels
POST https://api.cloudflare.com/client/v4/accounts/a/warp_connector   GET https://api.cloudflare.com/client/v4/accounts/a/warp_connector
GET https://api.cloudflare.com/client/v4/accounts/a/warp_connector/t/token    GET https://api.cloudflare.com/client/v4/accounts/a/warp_connector/t
POST https://api.cloudflare.com/client/v4/accounts/a/r2/temp-access-credentials    GET https://api.cloudflare.com/client/v4/accounts/a/r2/buckets
GET https://api.cloudflare.com/client/v4/accounts/a/challenges/widgets    GET https://api.cloudflare.com/client/v4/accounts/a/workers/scripts
POST https://api.cloudflare.com/client/v4/accounts/a/stream/keys      GET https://api.cloudflare.com/client/v4/accounts/a/stream/keys
GET https://api.cloudflare.com/client/v4/accounts/a/stream/live_inputs/l    GET https://api.cloudflare.com/client/v4/accounts/a/stream
GET https://api.cloudflare.com/client/v4/accounts/a/images/v1/keys    GET https://api.cloudflare.com/client/v4/accounts/a/images/v1
POST https://api.cloudflare.com/client/v4/accounts/a/calls/turn_keys  GET https://api.cloudflare.com/client/v4/accounts/a/calls/apps
POST https://api.cloudflare.com/client/v4/accounts/a/magic/ipsec_tunnels/i/psk_generate    GET https://api.cloudflare.com/client/v4/accounts/a/magic/ipsec_tunnels
digitalocean
POST https://api.digitalocean.com/v2/tokens                           GET https://api.digitalocean.com/v2/tokens
POST https://api.digitalocean.com/v2/spaces/keys                      GET https://api.digitalocean.com/v2/spaces/keys
POST https://api.digitalocean.com/v2/account/keys                     GET https://api.digitalocean.com/v2/account/keys
GET https://api.digitalocean.com/v2/kubernetes/clusters/c/kubeconfig  GET https://api.digitalocean.com/v2/kubernetes/clusters/c
GET https://api.digitalocean.com/v2/kubernetes/clusters/c/credentials GET https://api.digitalocean.com/v2/kubernetes/clusters/c/upgrades
GET https://api.digitalocean.com/v2/registry/docker-credentials       GET https://api.digitalocean.com/v2/registry
GET https://api.digitalocean.com/v2/registries/r/docker-credentials   GET https://api.digitalocean.com/v2/registries/r
GET https://api.digitalocean.com/v2/databases/d                       GET https://api.digitalocean.com/v2/droplets
GET https://api.digitalocean.com/v2/functions/namespaces/n            GET https://api.digitalocean.com/v2/apps
POST https://api.digitalocean.com/v2/gen-ai/agents/a/api_keys         GET https://api.digitalocean.com/v2/gen-ai/agents/a/api_keys
PUT https://api.digitalocean.com/v2/gen-ai/models/api_keys/k/regenerate    GET https://api.digitalocean.com/v2/gen-ai/models/api_keys
POST https://api.digitalocean.com/v2/dedicated-inferences/d/tokens    GET https://api.digitalocean.com/v2/dedicated-inferences/d/tokens
hetzner
POST https://api.hetzner.cloud/v1/servers/1/actions/reset_password    POST https://api.hetzner.cloud/v1/servers/1/actions/reset
POST https://api.hetzner.cloud/v1/servers/1/actions/enable_rescue     POST https://api.hetzner.cloud/v1/servers/1/actions/disable_rescue
POST https://api.hetzner.cloud/v1/servers/1/actions/request_console   POST https://api.hetzner.cloud/v1/servers/1/actions/poweron
POST https://api.hetzner.cloud/v1/ssh_keys                            GET https://api.hetzner.cloud/v1/ssh_keys
linode
POST https://api.linode.com/v4/profile/tokens                         GET https://api.linode.com/v4/profile/tokens
POST https://api.linode.com/v4/profile/sshkeys                        GET https://api.linode.com/v4/profile/sshkeys
POST https://api.linode.com/v4beta/object-storage/keys                GET https://api.linode.com/v4beta/object-storage/keys
GET https://api.linode.com/v4/lke/clusters/1/kubeconfig               GET https://api.linode.com/v4/lke/clusters/1
GET https://api.linode.com/v4/databases/mysql/instances/1/credentials GET https://api.linode.com/v4/databases/mysql/instances/1
POST https://api.linode.com/v4/account/oauth-clients                  GET https://api.linode.com/v4/account/oauth-clients
POST https://api.linode.com/v4/linode/instances/1/password            POST https://api.linode.com/v4/linode/instances/1/boot
GET https://api.linode.com/v4/longview/clients                        GET https://api.linode.com/v4/longview/plan
vultr
POST https://api.vultr.com/v2/users                                   GET https://api.vultr.com/v2/users
POST https://api.vultr.com/v2/ssh-keys                                GET https://api.vultr.com/v2/ssh-keys
GET https://api.vultr.com/v2/object-storage/o                         GET https://api.vultr.com/v2/blocks
GET https://api.vultr.com/v2/databases/d                              GET https://api.vultr.com/v2/instances
GET https://api.vultr.com/v2/kubernetes/clusters/c/config             GET https://api.vultr.com/v2/kubernetes/clusters/c
GET https://api.vultr.com/v2/inference/i                              GET https://api.vultr.com/v2/regions
tailscale
POST https://api.tailscale.com/api/v2/tailnet/-/keys                  GET https://api.tailscale.com/api/v2/tailnet/-/keys
POST https://api.tailscale.com/api/v2/oauth/token                     GET https://api.tailscale.com/api/v2/tailnet/-/acl
POST https://api.tailscale.com/api/v2/tailnet/-/webhooks              GET https://api.tailscale.com/api/v2/tailnet/-/webhooks
POST https://api.tailscale.com/api/v2/webhooks/w/rotate               GET https://api.tailscale.com/api/v2/webhooks/w
ngrok
POST https://api.ngrok.com/api_keys                                   GET https://api.ngrok.com/api_keys
POST https://api.ngrok.com/credentials                                GET https://api.ngrok.com/credentials
POST https://api.ngrok.com/ssh_credentials                            GET https://api.ngrok.com/ssh_credentials
POST https://api.ngrok.com/ssh_user_certificates                      GET https://api.ngrok.com/ssh_user_certificates
POST https://api.ngrok.com/ssh_host_certificates                      GET https://api.ngrok.com/ssh_host_certificates
vercel
POST https://api.vercel.com/v3/user/tokens                            GET https://api.vercel.com/v5/user/tokens
GET https://api.vercel.com/v9/projects/p/env                          POST https://api.vercel.com/v10/projects/p/env
GET https://api.vercel.com/v1/env                                     GET https://api.vercel.com/v9/projects/p
PATCH https://api.vercel.com/v1/projects/p/protection-bypass          GET https://api.vercel.com/v1/projects/p/promote/aliases
POST https://api.vercel.com/v1/projects/p/token                       GET https://api.vercel.com/v9/projects/p/domains
POST https://api.vercel.com/v1/edge-config/e/token                    GET https://api.vercel.com/v1/edge-config/e/items
GET https://api.vercel.com/v1/storage/stores/s/secrets                GET https://api.vercel.com/v1/storage/stores
POST https://api.vercel.com/v1/api-keys                               GET https://api.vercel.com/v1/api-keys
POST https://api.vercel.com/v1/connect/token/slack                    GET https://api.vercel.com/v1/connect/connectors
POST https://api.vercel.com/v1/integrations/sso/token                 GET https://api.vercel.com/v1/integrations/configurations
netlify
POST https://api.netlify.com/api/v1/oauth/tickets/t/exchange          GET https://api.netlify.com/api/v1/oauth/tickets/t
GET https://api.netlify.com/api/v1/accounts/a/env                     GET https://api.netlify.com/api/v1/accounts/a/builds
GET https://api.netlify.com/api/v1/sites/s/env                        GET https://api.netlify.com/api/v1/sites/s
POST https://api.netlify.com/api/v1/sites/s/build_hooks               POST https://api.netlify.com/api/v1/sites/s/builds
heroku
POST https://api.heroku.com/oauth/authorizations                      GET https://api.heroku.com/account
POST https://api.heroku.com/account/keys                              GET https://api.heroku.com/account/keys
POST https://api.heroku.com/users/~/keys                              GET https://api.heroku.com/users/~/apps
GET https://api.heroku.com/apps/a/config-vars                         GET https://api.heroku.com/apps/a/releases
GET https://api.heroku.com/pipelines/p/stage/review/config-vars       GET https://api.heroku.com/pipelines/p
GET https://api.heroku.com/addons/a/config                            GET https://api.heroku.com/addons/a
POST https://api.heroku.com/addons/a/sso                              GET https://api.heroku.com/apps/a/addons
GET https://api.heroku.com/apps/a/addons/b/sso                        GET https://api.heroku.com/apps/a/addons/b
fly
POST https://api.machines.dev/v1/tokens/oidc                          GET https://api.machines.dev/v1/tokens/current
POST https://api.machines.dev/v1/apps/a/deploy_token                  GET https://api.machines.dev/v1/apps/a
GET https://api.machines.dev/v1/apps/a/secrets?show_secrets=true      POST https://api.machines.dev/v1/apps/a/secrets/X
render
GET https://api.render.com/v1/postgres/p/connection-info              GET https://api.render.com/v1/postgres/p
GET https://api.render.com/v1/redis/r/connection-info                 GET https://api.render.com/v1/redis/r
GET https://api.render.com/v1/key-value/k/connection-info             GET https://api.render.com/v1/key-value/k
GET https://api.render.com/v1/services/s/env-vars                     GET https://api.render.com/v1/services/s
GET https://api.render.com/v1/services/s/secret-files                 GET https://api.render.com/v1/services/s/events
GET https://api.render.com/v1/env-groups/e                            GET https://api.render.com/v1/environments
supabase
GET https://api.supabase.com/v1/projects/p/api-keys?reveal=true       GET https://api.supabase.com/v1/projects/p/functions
POST https://api.supabase.com/v1/projects/p/config/auth/signing-keys  GET https://api.supabase.com/v1/projects/p/config/auth/sso/providers
GET https://api.supabase.com/v1/projects/p/pgsodium                   GET https://api.supabase.com/v1/projects/p/health
GET https://api.supabase.com/v1/projects/p/postgrest                  GET https://api.supabase.com/v1/projects/p/types/typescript
POST https://api.supabase.com/v1/projects/p/cli/login-role            GET https://api.supabase.com/v1/projects/p
GET https://api.supabase.com/v1/branches/b                            POST https://api.supabase.com/v1/branches/b/merge
POST https://api.supabase.com/v1/oauth/token                          GET https://api.supabase.com/v1/organizations
neon
POST https://console.neon.tech/api/v2/api_keys                        GET https://console.neon.tech/api/v2/api_keys
POST https://console.neon.tech/api/v2/organizations/o/api_keys        GET https://console.neon.tech/api/v2/organizations/o/api_keys
GET https://console.neon.tech/api/v2/projects/p/connection_uri        GET https://console.neon.tech/api/v2/projects/p
GET https://console.neon.tech/api/v2/projects/p/branches/b/roles/r/reveal_password    GET https://console.neon.tech/api/v2/projects/p/branches/b/roles/r
POST https://console.neon.tech/api/v2/projects/p/branches/b/roles/r/reset_password    GET https://console.neon.tech/api/v2/projects/p/branches/b/roles
POST https://console.neon.tech/api/v2/projects                        POST https://console.neon.tech/api/v2/projects/p/endpoints
POST https://console.neon.tech/api/v2/projects/p/branches             POST https://console.neon.tech/api/v2/projects/p/branches/b/restore
slack
POST https://slack.com/api/oauth.v2.access                            POST https://slack.com/api/auth.test
POST https://slack.com/api/openid.connect.token                       POST https://slack.com/api/users.info
POST https://slack.com/api/tooling.tokens.rotate                      POST https://slack.com/api/chat.update
POST https://slack.com/api/apps.manifest.create                       POST https://slack.com/api/apps.manifest.validate
POST https://slack.com/api/apps.auth.external.get                     POST https://slack.com/api/apps.connections.open
discord
POST https://discord.com/api/v10/channels/1/webhooks                  POST https://discord.com/api/v10/channels/1/messages
GET https://discord.com/api/channels/1/webhooks                       GET https://discord.com/api/channels/1/invites
GET https://discord.com/api/v10/guilds/1/webhooks                     GET https://discord.com/api/v10/guilds/1/channels
GET https://discord.com/api/guilds/1/webhooks                         GET https://discord.com/api/guilds/1/roles
GET https://discord.com/api/v10/webhooks/1                            POST https://discord.com/api/v10/webhooks/1/token
PATCH https://discord.com/api/webhooks/1                              PATCH https://discord.com/api/webhooks/1/token/messages/2
POST https://discord.com/api/v10/oauth2/token                         GET https://discord.com/api/v10/oauth2/@me
POST https://discord.com/api/oauth2/token                             GET https://discord.com/api/oauth2/applications/@me
notion
POST https://api.notion.com/v1/oauth/token                            POST https://api.notion.com/v1/databases
airtable
POST https://api.airtable.com/v0/bases/b/webhooks                     GET https://api.airtable.com/v0/bases/b/webhooks
figma
POST https://api.figma.com/v1/oauth/token                             POST https://api.figma.com/v1/files/f/comments
hubspot
POST https://api.hubapi.com/oauth/v1/token                            GET https://api.hubapi.com/oauth/v1/access-tokens/t
POST https://api.hubapi.com/conversations/v3/visitor-identification/tokens/create    GET https://api.hubapi.com/conversations/v3/conversations/threads
intercom
POST https://api.intercom.io/auth/eagle/token                         POST https://api.intercom.io/contacts
asana
POST https://app.asana.com/-/oauth_token                              GET https://app.asana.com/api/1.0/projects
POST https://app.asana.com/api/1.0/webhooks                           GET https://app.asana.com/api/1.0/webhooks
clickup
POST https://api.clickup.com/api/v2/oauth/token                       GET https://api.clickup.com/api/v2/user
GET https://api.clickup.com/api/v2/team/1/webhook                     GET https://api.clickup.com/api/v2/team/1/space
todoist
POST https://api.todoist.com/api/v1/access_tokens/migrate_personal_token    POST https://api.todoist.com/api/v1/tasks
POST https://api.todoist.com/oauth/access_token                       GET https://api.todoist.com/api/v1/projects
dropbox
POST https://api.dropboxapi.com/oauth2/token                          POST https://api.dropboxapi.com/2/users/get_current_account
POST https://api.dropboxapi.com/2/auth/token/from_oauth1              POST https://api.dropboxapi.com/2/auth/token/revoke
POST https://api.dropboxapi.com/2/files/get_temporary_link            POST https://api.dropboxapi.com/2/files/get_metadata
POST https://api.dropboxapi.com/2/files/get_temporary_upload_link     POST https://api.dropboxapi.com/2/files/list_folder
contentful
POST https://api.contentful.com/users/me/access_tokens                GET https://api.contentful.com/users/me/access_tokens
GET https://api.contentful.com/spaces/s/api_keys                      GET https://api.contentful.com/spaces/s/environments
GET https://api.contentful.com/spaces/s/preview_api_keys/k            GET https://api.contentful.com/spaces/s/locales
POST https://api.contentful.com/spaces/s/environments/e/app_installations/a/access_tokens    GET https://api.contentful.com/spaces/s/environments/e/app_installations/a
POST https://api.contentful.com/organizations/o/app_definitions/a/keys    GET https://api.contentful.com/organizations/o/app_definitions/a/keys
PUT https://api.contentful.com/organizations/o/app_definitions/a/signing_secret    GET https://api.contentful.com/organizations/o/app_definitions/a/signing_secret
stripe
POST https://api.stripe.com/v1/ephemeral_keys                         DELETE https://api.stripe.com/v1/ephemeral_keys/k
GET https://api.stripe.com/v1/apps/secrets/find                       GET https://api.stripe.com/v1/customers
POST https://api.stripe.com/v1/terminal/connection_tokens             POST https://api.stripe.com/v1/terminal/readers
POST https://api.stripe.com/v1/account_sessions                       POST https://api.stripe.com/v1/checkout/sessions
POST https://api.stripe.com/v1/customer_sessions                      POST https://api.stripe.com/v1/customers
POST https://api.stripe.com/v1/accounts/acct_1/login_links            GET https://api.stripe.com/v1/accounts/acct_1
POST https://api.stripe.com/v1/webhook_endpoints                      POST https://api.stripe.com/v1/webhook_endpoints/we_1
POST https://api.stripe.com/v2/core/event_destinations                GET https://api.stripe.com/v2/core/event_destinations
POST https://api.stripe.com/v2/iam/api_keys                           GET https://api.stripe.com/v2/iam/api_keys
square
POST https://connect.squareup.com/oauth2/token                        GET https://connect.squareup.com/v2/locations
POST https://connect.squareup.com/mobile/authorization-code           POST https://connect.squareup.com/v2/orders
POST https://connect.squareup.com/v2/webhooks/subscriptions           GET https://connect.squareup.com/v2/webhooks/event-types
POST https://connect.squareupsandbox.com/oauth2/token                 GET https://connect.squareupsandbox.com/v2/locations
POST https://connect.squareupsandbox.com/mobile/authorization-code    POST https://connect.squareupsandbox.com/v2/orders
POST https://connect.squareupsandbox.com/v2/webhooks/subscriptions    GET https://connect.squareupsandbox.com/v2/webhooks/event-types
clerk
POST https://api.clerk.com/v1/sign_in_tokens                          GET https://api.clerk.com/v1/sessions
POST https://api.clerk.com/v1/actor_tokens                            GET https://api.clerk.com/v1/clients
POST https://api.clerk.com/v1/testing_tokens                          GET https://api.clerk.com/v1/jwks
POST https://api.clerk.com/v1/sessions/s/tokens                       GET https://api.clerk.com/v1/sessions/s
GET https://api.clerk.com/v1/users/u/oauth_access_tokens/oauth_github GET https://api.clerk.com/v1/users/u
POST https://api.clerk.com/v1/oauth_applications/a/rotate_secret      GET https://api.clerk.com/v1/oauth_applications
POST https://api.clerk.com/v1/m2m_tokens                              GET https://api.clerk.com/v1/m2m_tokens
GET https://api.clerk.com/v1/machines/m/secret_key                    GET https://api.clerk.com/v1/machines/m
POST https://api.clerk.com/v1/api_keys                                GET https://api.clerk.com/v1/api_keys
sendgrid
POST https://api.sendgrid.com/v3/api_keys                             GET https://api.sendgrid.com/v3/api_keys
POST https://api.sendgrid.com/v3/subusers                             GET https://api.sendgrid.com/v3/subusers
POST https://api.sendgrid.com/v3/teammates                            GET https://api.sendgrid.com/v3/teammates
POST https://api.sendgrid.com/v3/sso/teammates                        GET https://api.sendgrid.com/v3/stats
resend
POST https://api.resend.com/api-keys                                  GET https://api.resend.com/api-keys
POST https://api.resend.com/webhooks                                  GET https://api.resend.com/domains
brevo
POST https://api.brevo.com/v3/corporate/ssoToken                      GET https://api.brevo.com/v3/corporate/masterAccount
POST https://api.brevo.com/v3/corporate/subAccount/ssoToken           GET https://api.brevo.com/v3/corporate/subAccount
POST https://api.brevo.com/v3/corporate/subAccount/key                GET https://api.brevo.com/v3/account
datadog
POST https://api.datadoghq.com/api/v1/api_key                         GET https://api.datadoghq.com/api/v1/validate
POST https://api.datadoghq.com/api/v1/application_key                 POST https://api.datadoghq.com/api/v1/events
POST https://api.datadoghq.com/api/v2/api_keys                        POST https://api.datadoghq.com/api/v2/series
POST https://api.datadoghq.com/api/v2/application_keys                GET https://api.datadoghq.com/api/v2/users
POST https://api.datadoghq.com/api/v2/current_user/application_keys   GET https://api.datadoghq.com/api/v2/current_user
POST https://api.datadoghq.com/api/v2/service_accounts/s/application_keys    GET https://api.datadoghq.com/api/v2/monitor
newrelic
POST https://api.newrelic.com/graphql                                 GET https://api.newrelic.com/v2/alerts_policies.json
pagerduty
POST https://api.pagerduty.com/services/s/integrations                GET https://api.pagerduty.com/services/s
POST https://api.pagerduty.com/webhook_subscriptions                  GET https://api.pagerduty.com/webhook_subscriptions
honeycomb
POST https://api.honeycomb.io/2/teams/t/api-keys                      GET https://api.honeycomb.io/2/teams/t/api-keys
axiom
POST https://api.axiom.co/v2/tokens                                   GET https://api.axiom.co/v2/tokens
POST https://api.axiom.co/v1/tokens                                   POST https://api.axiom.co/v1/datasets/_apl
rollbar
GET https://api.rollbar.com/api/1/project/1/access_tokens             GET https://api.rollbar.com/api/1/project/1
posthog
POST https://us.posthog.com/api/personal_api_keys/                    GET https://us.posthog.com/api/personal_api_keys/
POST https://eu.posthog.com/api/personal_api_keys/                    GET https://eu.posthog.com/api/projects/
langsmith
POST https://api.smith.langchain.com/api-key                          GET https://api.smith.langchain.com/api-key
POST https://api.smith.langchain.com/api/v1/api-key/current           GET https://api.smith.langchain.com/api/v1/api-key
POST https://api.smith.langchain.com/orgs/current/personal-access-tokens         GET https://api.smith.langchain.com/orgs/current
POST https://api.smith.langchain.com/api/v1/orgs/current/personal-access-tokens  GET https://api.smith.langchain.com/api/v1/orgs/current
POST https://api.smith.langchain.com/orgs/current/service-keys        GET https://api.smith.langchain.com/info
POST https://api.smith.langchain.com/api/v1/orgs/current/service-keys GET https://api.smith.langchain.com/api/v1/sessions
braintrust
POST https://api.braintrust.dev/v1/api_key                            GET https://api.braintrust.dev/v1/api_key
`

// A mint is one line of the table, under the name of its preset.
type mint struct{ preset, refused, passes string }

func mints(t *testing.T) []mint {
	t.Helper()
	var all []mint
	preset := ""
	for line := range strings.Lines(strings.TrimSpace(minting)) {
		f := strings.Fields(line)
		switch len(f) {
		case 1:
			preset = f[0]
		case 4:
			all = append(all, mint{preset, f[0] + " " + f[1], f[2] + " " + f[3]})
		default:
			t.Fatalf("line %q is neither a preset nor two requests", line)
		}
	}
	return all
}

func presetNamed(t *testing.T, name string) *policy.Policy {
	t.Helper()
	for _, p := range Presets() {
		if p.Name == name {
			return policyOf(t, p)
		}
	}
	t.Fatalf("no preset %q", name)
	return nil
}

// TestAttackMinting asks for other credentials with each key, in the spellings that servers take for the
// same.
func TestAttackMinting(t *testing.T) {
	for _, m := range mints(t) {
		p := presetNamed(t, m.preset)
		target, query, asked := strings.Cut(m.refused, "?")
		if asked {
			query = "?" + query
		}
		for _, suffix := range []string{"", "?x=y", "/", "//", "/."} {
			if d := decide(t, p, target+suffix+query); d.Verdict != policy.Deny {
				t.Errorf("%s: %s%s: %+v", m.preset, target, suffix, d)
			}
		}
		if d := decide(t, p, m.passes); d.Verdict != policy.Allow {
			t.Errorf("%s: %s: %+v", m.preset, m.passes, d)
		}
	}
}

// TestEveryDenyRuleIsAttacked holds that the table above has a request for each rule.
func TestEveryDenyRuleIsAttacked(t *testing.T) {
	attacked := map[string]bool{}
	for _, m := range mints(t) {
		d := decide(t, presetNamed(t, m.preset), m.refused)
		if d.List != policy.ListPreset {
			t.Errorf("%s: %s: %+v", m.preset, m.refused, d)
		}
		attacked[strings.TrimSuffix(d.Rule, "/")] = true
	}
	for _, p := range Presets() {
		for _, rule := range p.Deny {
			if !attacked[strings.TrimSuffix(rule, "/")] {
				t.Errorf("preset %s: no request for %q", p.Name, rule)
			}
		}
	}
}

// TestAttackMethodOverride holds that no rule names a method which a POST could stand for: some servers take
// X-HTTP-Method-Override, or a parameter, instead of the method of a POST. The exceptions don't.
func TestAttackMethodOverride(t *testing.T) {
	for _, p := range Presets() {
		for _, rule := range p.Deny {
			methods, _, ok := strings.Cut(rule, " ")
			if ok && !strings.Contains(methods, "POST") && p.Name != "vercel" && p.Name != "fly" && p.Name != "supabase" {
				t.Errorf("preset %s: %q misses a POST that stands for %s", p.Name, rule, methods)
			}
		}
	}
}
