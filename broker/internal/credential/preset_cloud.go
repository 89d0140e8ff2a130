package credential

import "torno.internal/protocol/control"

// cloudPresets are the services that rent machines and networks.
func cloudPresets() []control.Preset {
	return []control.Preset{
		cloudflare(),
		{
			Name:        "digitalocean",
			Keys:        []string{"DIGITALOCEAN_TOKEN", "DIGITALOCEAN_ACCESS_TOKEN"},
			Service:     "DigitalOcean",
			Audience:    []string{"https://api.digitalocean.com"},
			Inject:      asBearer(),
			Placeholder: "dop_v1_*64",
			Prefix:      []string{"dop_v1_", "doo_v1_", "dor_v1_"},
			Deny: on("api.digitalocean.com", "POST,PUT,PATCH /v2/tokens**", "POST,PUT,PATCH /v2/spaces/keys**", "POST /v2/account/keys**",
				"/v2/kubernetes/clusters/*/kubeconfig**", "/v2/kubernetes/clusters/*/credentials**", "/v2/registry/docker-credentials**",
				"/v2/registries/*/docker-credentials**", "/v2/databases**", "/v2/functions/namespaces**",
				"POST,PUT,PATCH /v2/gen-ai/agents/*/api_keys**", "POST,PUT,PATCH /v2/gen-ai/models/api_keys**",
				"POST /v2/dedicated-inferences/*/tokens**"),
			Docs: "https://docs.digitalocean.com/reference/api/",
		},
		{
			Name:        "hetzner",
			Keys:        []string{"HCLOUD_TOKEN"},
			Service:     "Hetzner Cloud",
			Audience:    []string{"https://api.hetzner.cloud"},
			Inject:      asBearer(),
			Placeholder: "*64",
			SDKNeedsKey: true,
			Deny: on("api.hetzner.cloud", "POST /v1/servers/*/actions/reset_password**", "POST /v1/servers/*/actions/enable_rescue**",
				"POST /v1/servers/*/actions/request_console**", "POST /v1/ssh_keys**"),
			Docs: "https://docs.hetzner.cloud/",
		},
		{
			Name:        "linode",
			Keys:        []string{"LINODE_TOKEN", "LINODE_CLI_TOKEN"},
			Service:     "Akamai Cloud (Linode)",
			Audience:    []string{"https://api.linode.com"},
			Inject:      asBearer(),
			Placeholder: "*64",
			Deny: on("api.linode.com", "POST,PUT /v4*/profile/tokens**", "POST /v4*/profile/sshkeys**", "POST,PUT /v4*/object-storage/keys**",
				"/v4*/lke/clusters/*/kubeconfig**", "/v4*/databases/*/instances/*/credentials**",
				"POST /v4*/account/oauth-clients**", "POST /v4*/linode/instances/*/password**", "/v4*/longview/clients**"),
			Docs: "https://techdocs.akamai.com/linode-api/reference/api",
		},
		{
			Name:        "vultr",
			Keys:        []string{"VULTR_API_KEY"},
			Service:     "Vultr",
			Audience:    []string{"https://api.vultr.com"},
			Inject:      asBearer(),
			Placeholder: "*36",
			Deny: on("api.vultr.com", "POST,PUT,PATCH /v2/users**", "POST,PATCH /v2/ssh-keys**", "/v2/object-storage**", "/v2/databases**",
				"/v2/kubernetes/clusters/*/config**", "/v2/inference**"),
			Docs: "https://www.vultr.com/api/",
		},
		{
			Name:        "tailscale",
			Keys:        []string{"TAILSCALE_API_KEY"},
			Service:     "Tailscale API",
			Audience:    []string{"https://api.tailscale.com"},
			Inject:      asBearer(),
			Placeholder: "tskey-api-*50",
			Prefix:      []string{"tskey-api-"},
			Deny: on("api.tailscale.com", "POST,PUT,PATCH /api/v2/tailnet/*/keys**", "POST /api/v2/oauth/**",
				"POST /api/v2/tailnet/*/webhooks**", "POST /api/v2/webhooks/*/rotate**"),
			Docs: "https://tailscale.com/api",
		},
		{
			Name:        "ngrok",
			Keys:        []string{"NGROK_API_KEY"},
			Service:     "ngrok API",
			Audience:    []string{"https://api.ngrok.com"},
			Inject:      asBearer(),
			Placeholder: "*49",
			Deny:        on("api.ngrok.com", "POST /api_keys**", "POST /credentials**", "POST /ssh_credentials**", "POST /ssh_user_certificates**", "POST /ssh_host_certificates**"),
			Docs:        "https://ngrok.com/docs/api/",
		},
	}
}

func cloudflare() control.Preset {
	return control.Preset{
		Name:        "cloudflare",
		Keys:        []string{"CLOUDFLARE_API_TOKEN", "CF_API_TOKEN"},
		Service:     "Cloudflare API",
		Audience:    []string{"https://api.cloudflare.com"},
		Inject:      asBearer(),
		Placeholder: "*40",
		Deny: on("api.cloudflare.com",
			"POST,PUT,PATCH /client/v4/user/tokens**", "POST,PUT,PATCH /client/v4/accounts/*/tokens**", "/client/v4/user/service_keys**",
			"POST,PUT,PATCH /client/v4/accounts/*/access/service_tokens**", "POST,PUT,PATCH /client/v4/zones/*/access/service_tokens**",
			"POST /client/v4/accounts/*/cfd_tunnel", "/client/v4/accounts/*/cfd_tunnel/*/token**", "/client/v4/accounts/*/cfd_tunnel/*/management**",
			"POST /client/v4/accounts/*/tunnels", "POST /client/v4/accounts/*/warp_connector", "/client/v4/accounts/*/warp_connector/*/token**",
			"POST /client/v4/accounts/*/r2/temp-access-credentials**", "/client/v4/accounts/*/challenges/widgets**",
			"POST /client/v4/accounts/*/stream/keys**", "/client/v4/accounts/*/stream/live_inputs**", "/client/v4/accounts/*/images/v1/keys**",
			"POST,PUT /client/v4/accounts/*/calls/**", "POST /client/v4/accounts/*/magic/ipsec_tunnels/*/psk_generate**"),
		Docs: "https://developers.cloudflare.com/fundamentals/api/",
	}
}
