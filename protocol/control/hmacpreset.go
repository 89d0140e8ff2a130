package control

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// An hmacPreset is how one service wants to be signed for.
type hmacPreset struct {
	Name, Service string
	params        string // as in --as hmac:…
	fields        []FieldTemplate
	Docs          string
}

// hmacPresets are the services that SchemeHMAC knows by name.
var hmacPresets = []hmacPreset{
	{
		Name: "slack", Service: "Slack's requests to an app, as Slack sends them", params: "sign=v0:{time:s}:{body}",
		fields: []FieldTemplate{{"x-slack-request-timestamp", "{time:s}"}, {"x-slack-signature", "v0={signature}"}},
		Docs:   "https://docs.slack.dev/authentication/verifying-requests-from-slack",
	},
	{
		Name: "stripe", Service: "Stripe's webhooks, as Stripe sends them", params: "sign={time:s}.{body}",
		fields: []FieldTemplate{{"stripe-signature", "t={time:s},v1={signature}"}},
		Docs:   "https://docs.stripe.com/webhooks/signature",
	},
	{
		Name: "github", Service: "GitHub's webhooks, as GitHub sends them", params: "sign={body}",
		fields: []FieldTemplate{{"x-hub-signature-256", "sha256={signature}"}},
		Docs:   "https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries",
	},
	{
		Name: "standard-webhooks", Service: "webhooks of Standard Webhooks, as their sender",
		params: "sign={nonce:hex}.{time:s}.{body},key=base64,key-prefix=whsec_,out=base64",
		fields: []FieldTemplate{{"webhook-id", "{nonce:hex}"}, {"webhook-timestamp", "{time:s}"}, {"webhook-signature", "v1,{signature}"}},
		Docs:   "https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md",
	},
	{
		Name: "twilio", Service: "Twilio's webhooks with forms, as Twilio sends them", params: "sign={url}{form-sorted},hash=sha1,out=base64",
		fields: []FieldTemplate{{"x-twilio-signature", "{signature}"}},
		Docs:   "https://www.twilio.com/docs/usage/webhooks/webhooks-security",
	},
	{
		Name: "twilio-json", Service: "Twilio's webhooks with JSON", params: "sign={url},query=bodySHA256={body:sha256:hex},hash=sha1,out=base64",
		fields: []FieldTemplate{{"x-twilio-signature", "{signature}"}},
		Docs:   "https://www.twilio.com/docs/usage/webhooks/webhooks-security",
	},
	{
		Name: "binance", Service: "Binance", params: "sign={query}{body},query=timestamp={time:ms}&signature={signature}",
		fields: []FieldTemplate{{"x-mbx-apikey", "{id}"}},
		Docs:   "https://developers.binance.com/docs/binance-spot-api-docs/rest-api/request-security",
	},
	{
		Name: "coinbase-exchange", Service: "Coinbase Exchange", params: "sign={time:s}{method}{target}{body},key=base64,out=base64",
		fields: []FieldTemplate{{"cb-access-key", "{id}"}, {"cb-access-passphrase", "{passphrase}"}, {"cb-access-sign", "{signature}"}, {"cb-access-timestamp", "{time:s}"}},
		Docs:   "https://docs.cdp.coinbase.com/exchange/rest-api/authentication",
	},
	{
		Name: "coinbase-app", Service: "Coinbase, with keys from before those of its developer platform", params: "sign={time:s}{method}{path}{body}",
		fields: []FieldTemplate{{"cb-access-key", "{id}"}, {"cb-access-sign", "{signature}"}, {"cb-access-timestamp", "{time:s}"}},
		Docs:   "https://docs.cdp.coinbase.com/coinbase-app/authentication-authorization/api-key-authentication",
	},
	{
		Name: "kraken", Service: "Kraken", params: "sign={path}{inner:sha256:raw},inner={form:nonce}{body},hash=sha512,key=base64,out=base64",
		fields: []FieldTemplate{{"api-key", "{id}"}, {"api-sign", "{signature}"}},
		Docs:   "https://docs.kraken.com/api/docs/guides/spot-rest-auth",
	},
}

// HMACPresets returns the names of the services that SchemeHMAC knows, in the order of its table.
func HMACPresets() []string {
	names := make([]string, len(hmacPresets))
	for i, p := range hmacPresets {
		names[i] = p.Name
	}
	return names
}

// HMACPresetOf returns what a preset of SchemeHMAC stands for, who it is for and where that is described.
func HMACPresetOf(name string) (in Injector, service, docs string, ok bool) {
	i := slices.IndexFunc(hmacPresets, func(p hmacPreset) bool { return p.Name == name })
	if i < 0 {
		return Injector{}, "", "", false
	}
	p := hmacPresets[i]
	in = Injector{Scheme: SchemeHMAC, Fields: slices.Clone(p.fields)}
	for pair := range strings.SplitSeq(p.params, ",") {
		name, value, _ := strings.Cut(pair, "=")
		in.Params = append(in.Params, Param{name, value})
	}
	slices.SortFunc(in.Params, func(a, b Param) int { return strings.Compare(a.Name, b.Name) })
	return in, p.Service, p.Docs, true
}

// fillPreset returns in with what its preset stands for.
func fillPreset(in Injector) (Injector, error) {
	name := in.Param(ParamPreset)
	if name == "" || in.Scheme != SchemeHMAC {
		return in, nil
	}
	full, _, _, ok := HMACPresetOf(name)
	switch {
	case !ok:
		return Injector{}, fmt.Errorf("preset %q is none of %s", name, strings.Join(HMACPresets(), ", "))
	case len(in.Params) > 1 || len(in.Fields) > 0:
		return Injector{}, errors.New("a preset says all by itself; leave the other parameters and the headers out")
	}
	return full, nil
}

// FieldNames returns the names of the fields that are set by the injector's own templates or formulas, its preset's included.
func (in Injector) FieldNames() []string {
	if full, err := fillPreset(in); err == nil {
		in = full
	}
	names := make([]string, len(in.Fields))
	for i, f := range in.Fields {
		names[i] = f.Name
	}
	return names
}
