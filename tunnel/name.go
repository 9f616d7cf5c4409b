package tunnel

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Limits of names (RFC 1035, section 2.3.4), in bytes.
const (
	maxLabel = 63
	maxHost  = 253 // a domain name's 255 without its length byte and its root
)

const nameRule = "allowed are 1 to 63 letters a-z, digits and hyphens, with no hyphen at either end"

// ValidateName holds the name of a tunnel or an agent to the rules of a DNS
// label in lower case, since an http tunnel's name becomes one. The error says
// what is wrong and what is allowed.
func ValidateName(name string) error {
	wrong := ""
	switch problem := labelProblem(name); {
	case problem != "":
		wrong = problem
	case hasUpper(name):
		wrong = "has upper-case letters"
	case strings.HasPrefix(name, "xn--"):
		wrong = "starts with xn--, which stands for other letters"
	}
	if wrong == "" {
		return nil
	}
	return fmt.Errorf("the name %q %s; %s", clip(name), wrong, nameRule)
}

// CanonicalHost gives a host name the one form in which names are stored and
// compared: lower case, without a trailing dot, other letters than ASCII in
// their xn-- form (IDNA 2008 as browsers look names up, UTS 46). A port, an IP
// address, a wildcard and a name that breaks the rules of DNS are errors that
// say so. A host that is canonical already costs no allocation, unless a label
// of it starts with xn--.
func CanonicalHost(host string) (string, error) {
	if host == "" {
		return "", errors.New("the host name is empty")
	}
	if problem := hostProblem(host); problem != "" {
		return "", fmt.Errorf("the host name %q %s", clip(host), problem)
	}
	canonical := strings.TrimSuffix(host, ".")
	ascii := isASCII(canonical)
	if ascii && hasUpper(canonical) { // in other scripts case is IDNA's business
		canonical = strings.ToLower(canonical)
	}
	if !ascii || hasACELabel(canonical) {
		converted, err := idna.Lookup.ToASCII(canonical)
		if err != nil {
			return "", fmt.Errorf("the host name %q has characters that domain names cannot have: %w", clip(host), err)
		}
		// Other characters than '.' may have become dots.
		canonical = strings.TrimSuffix(converted, ".")
	}
	if problem := asciiHostProblem(canonical); problem != "" {
		return "", fmt.Errorf("the host name %q %s", clip(host), problem)
	}
	return canonical, nil
}

// hostProblem looks for what is no host name in any script, to say what it is
// instead.
func hostProblem(host string) string {
	switch {
	case len(host) > 4*maxHost: // more than any name's UTF-8
		return "is too long"
	case !utf8.ValidString(host): // IDNA would take it for other letters
		return "is no text in UTF-8"
	case strings.Contains(host, "://"):
		return "is a URL; write the name alone"
	case strings.ContainsAny(host, "/?#@\\"):
		return "has more than a name in it; write the name alone"
	case strings.ContainsAny(host, ":[]"):
		return "has a port, or is an IP address; write a name without a port"
	case strings.Contains(host, "*"):
		return "has a wildcard; write one name"
	}
	return ""
}

// asciiHostProblem holds a name of any case to the rules of DNS.
func asciiHostProblem(host string) string {
	if len(host) > maxHost {
		return fmt.Sprintf("is longer than %d characters", maxHost)
	}
	var last string
	for rest, more := host, true; more; {
		last, rest, more = strings.Cut(rest, ".")
		if last == "" {
			return "has an empty part; parts are separated by single dots"
		}
		if problem := labelProblem(last); problem != "" {
			return fmt.Sprintf("has a part that %s; in each part %s", problem, nameRule)
		}
	}
	// Such names are addresses to browsers and resolvers, in one of their many
	// spellings (WHATWG URL, "ends in a number checker").
	if strings.Trim(last, "0123456789") == "" || strings.HasPrefix(strings.ToLower(last), "0x") && strings.Trim(last[2:], "0123456789abcdefABCDEF") == "" {
		return "ends in a number, so it is an IP address; write a name"
	}
	return ""
}

// labelProblem says how label breaks the rules of an LDH label (RFC 5890,
// section 2.3.1), in whatever case; "" if it does not.
func labelProblem(label string) string {
	if label == "" {
		return "is empty"
	}
	if len(label) > maxLabel {
		return fmt.Sprintf("has %d characters", len(label))
	}
	for i := range len(label) {
		if c := label[i]; !isLetterDigit(c) && c != '-' {
			if c == '_' {
				return "has an underscore"
			}
			return "has other characters than letters, digits and hyphens"
		}
	}
	if label[0] == '-' || label[len(label)-1] == '-' {
		return "starts or ends with a hyphen"
	}
	// RFC 5891, section 4.2.3.1: reserved, xn-- apart.
	if len(label) >= 4 && label[2:4] == "--" && !strings.EqualFold(label[:2], "xn") {
		return "has hyphens at its third and fourth place, which is reserved"
	}
	return ""
}

func isLetterDigit(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func hasUpper(s string) bool {
	for i := range len(s) {
		if s[i] >= 'A' && s[i] <= 'Z' {
			return true
		}
	}
	return false
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func hasACELabel(lower string) bool {
	return strings.HasPrefix(lower, "xn--") || strings.Contains(lower, ".xn--")
}
