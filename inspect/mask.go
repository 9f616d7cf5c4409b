package inspect

import "strings"

// Mask stands where a secret was. Sent back in a replay's headers, it stands
// for the value it masks.
const Mask = "[masked]"

// isSecret tells whether values of a field let their bearer in somewhere.
func isSecret(name string) bool {
	switch strings.ToLower(name) {
	case "authorization", "proxy-authorization", "cookie", "set-cookie", "set-cookie2",
		"x-api-key", "api-key", "apikey", "x-auth-token", "x-access-token", "x-auth-key",
		"x-csrf-token", "x-xsrf-token", "csrf-token", "x-session-token", "x-refresh-token",
		"x-amz-security-token", "x-goog-api-key", "x-goog-iap-jwt-assertion", "x-ms-token-aad-access-token",
		"cf-access-jwt-assertion", "cf-access-client-secret", "x-amzn-oidc-data", "x-amzn-oidc-accesstoken",
		"x-forwarded-access-token", "x-vault-token", "x-gitlab-token", "private-token", "job-token",
		"x-shopify-access-token", "x-telegram-bot-api-secret-token", "ocp-apim-subscription-key":
		return true
	}
	return false
}

// masked is a value with its secret taken out and what helps to recognise it
// left in: the scheme of an Authorization, the names of cookies, what a
// Set-Cookie says besides the value.
func masked(name, value string) string {
	if value == "" || !isSecret(name) {
		return value
	}
	switch strings.ToLower(name) {
	case "authorization", "proxy-authorization":
		if scheme, _, ok := strings.Cut(value, " "); ok && isToken(scheme) {
			return scheme + " " + Mask
		}
	case "cookie":
		parts := strings.Split(value, ";")
		for i, p := range parts {
			parts[i] = maskPair(p)
		}
		return strings.Join(parts, ";")
	case "set-cookie":
		pair, attributes, ok := strings.Cut(value, ";")
		if ok {
			return maskPair(pair) + ";" + attributes
		}
		return maskPair(pair)
	}
	return Mask
}

func maskPair(p string) string {
	if name, _, ok := strings.Cut(p, "="); ok {
		return name + "=" + Mask
	}
	return Mask
}

// shown is a head as it may leave the process.
func (i *Inspector) shown(list fields) []Field {
	out := make([]Field, len(list))
	for n, f := range list {
		out[n] = f
		if !i.cfg.Unmask {
			out[n].Value = masked(f.Name, f.Value)
		}
	}
	return out
}

// unmask puts the values back that a mask stands for, where a header of the
// same name had one that looks so when masked.
func unmask(edited []Field, original fields) []Field {
	out := make([]Field, len(edited))
	used := make([]bool, len(original))
	for n, f := range edited {
		out[n] = f
		if !strings.Contains(f.Value, Mask) {
			continue
		}
		for k, o := range original {
			if !used[k] && strings.EqualFold(o.Name, f.Name) && masked(o.Name, o.Value) == f.Value {
				used[k] = true
				out[n].Value = o.Value
				break
			}
		}
	}
	return out
}
