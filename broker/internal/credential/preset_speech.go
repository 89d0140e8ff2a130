package credential

import (
	"slices"

	"torno.internal/protocol/control"
)

// speechPresets are the services that hear and speak.
func speechPresets() []control.Preset {
	return []control.Preset{
		{
			Name:        "elevenlabs",
			Keys:        []string{"ELEVENLABS_API_KEY"},
			Service:     "ElevenLabs",
			Audience:    []string{"https://api.elevenlabs.io"},
			Inject:      intoHeader("xi-api-key", hole),
			Placeholder: "sk_*48",
			Prefix:      []string{"sk_"},
			Deny: on("api.elevenlabs.io", "POST /v1/single-use-token/**", "/v1/convai/conversation/get-signed-url**",
				"/v1/convai/conversation/get_signed_url**", "/v1/convai/conversation/token**", "POST /v1/service-accounts/*/api-keys**",
				"POST /v1/workspace/invites/**"),
			Docs: "https://elevenlabs.io/docs/api-reference/authentication",
		},
		{
			Name:        "deepgram",
			Keys:        []string{"DEEPGRAM_API_KEY"},
			Service:     "Deepgram",
			Audience:    []string{"https://api.deepgram.com"},
			Inject:      intoHeader("authorization", "Token "+hole),
			Placeholder: "*40",
			SDKNeedsKey: true,
			Deny: on("api.deepgram.com", "POST /v1/projects/*/keys**", "POST /v1/auth/grant**", "POST /v1/projects/*/invites**",
				"POST /v1/projects/*/self-hosted/distribution/credentials**", "POST /v1/projects/*/onprem/distribution/credentials**"),
			Docs: "https://developers.deepgram.com/docs/authenticating",
		},
		{
			Name:        "assemblyai",
			Keys:        []string{"ASSEMBLYAI_API_KEY"},
			Service:     "AssemblyAI",
			Audience:    []string{"https://api.assemblyai.com", "https://api.eu.assemblyai.com", "https://streaming.assemblyai.com"},
			Inject:      intoHeader("authorization", hole),
			Placeholder: "*32",
			SDKNeedsKey: true,
			Deny:        slices.Concat(on("api.assemblyai.com", "/v2/realtime/token**"), on("streaming.assemblyai.com", "/v3/token**")),
			Docs:        "https://www.assemblyai.com/docs/api-reference/overview",
		},
	}
}
