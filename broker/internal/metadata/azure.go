package metadata

import (
	"slices"
	"strconv"
	"strings"

	"torno.internal/protocol/control"
)

// An Azure is what SDKs for Azure may learn.
type Azure struct {
	Placeholder string // stands for access tokens
	Identities  []Identity
}

// An Identity is an application that access tokens are for, and what they are good for.
type Identity struct {
	Tenant, Client string
	Scope          string // RESOURCE/.default
}

// IdentityOf returns the identity that a secret of Azure's is for.
func IdentityOf(in control.Injector) Identity {
	return Identity{in.Param("tenant"), in.Param("id"), in.ParamOr("scope", control.DefaultAzureScope)}
}

const pathAzureToken = "/metadata/identity/oauth2/token"

func (a *Azure) answer(q *question) Answer {
	switch {
	case q.path != pathAzureToken:
		return azureError(404, "not_found", "torno answers for access tokens alone")
	case !q.reads():
		return azureError(405, "bad_request", "method not allowed")
	case !strings.EqualFold(q.Fields.Get("metadata"), "true"):
		return azureError(400, "bad_request", "required metadata header not specified")
	case q.forwarded():
		return azureError(400, "bad_request", "a proxy's requests are not answered")
	case q.query.Get("api-version") == "":
		return azureError(400, "bad_request", "api-version was not specified in the request")
	case q.query.Get("resource") == "":
		return azureError(400, "invalid_resource", "resource was not specified in the request")
	}
	resource, client := q.query.Get("resource"), q.query.Get("client_id")
	fits := slices.DeleteFunc(slices.Clone(a.Identities), func(i Identity) bool { return client != "" && i.Client != client })
	if len(fits) == 0 {
		return azureError(400, "invalid_request", "identity not found")
	}
	for _, i := range fits {
		if resourceOf(i.Scope) == resourceOf(resource) {
			return document(200, a.token(i, resource, q))
		}
	}
	return azureError(400, "invalid_resource", "no secret of this session is for this resource")
}

// resourceOf returns what a resource, or the scope for all of it, names.
func resourceOf(s string) string {
	return strings.TrimSuffix(strings.TrimSuffix(s, "/.default"), "/")
}

// token is the answer with a token, whose numbers are strings as Azure has them. The token looks like those of Azure, which
// some clients read; nobody but the broker takes it.
func (a *Azure) token(i Identity, resource string, q *question) map[string]string {
	expires := q.now.Add(lifetime).Unix()
	claims := map[string]any{
		"aud": resource, "iss": "https://sts.windows.net/" + i.Tenant + "/", "tid": i.Tenant, "appid": i.Client,
		"iat": q.now.Unix(), "nbf": q.now.Unix(), "exp": expires,
	}
	return map[string]string{
		"access_token": token(claims, a.Placeholder), "client_id": i.Client, "resource": resource, "token_type": "Bearer",
		"expires_in": strconv.Itoa(int(lifetime.Seconds())), "ext_expires_in": strconv.Itoa(int(lifetime.Seconds())),
		"expires_on": strconv.FormatInt(expires, 10), "not_before": strconv.FormatInt(q.now.Unix(), 10),
	}
}

func azureError(status int, code, text string) Answer {
	return document(status, map[string]string{"error": code, "error_description": text})
}
