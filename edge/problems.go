package edge

import (
	"net/http"
	"time"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/proxy"
)

// What visitors read when there is no way. They are told neither the agent's
// name nor whether a name was ever in use.
var (
	agentAway = &proxy.Problem{
		Status:     http.StatusServiceUnavailable,
		Code:       "agent_away",
		Title:      "The service is offline",
		Detail:     "The machine behind this address is not connected at the moment: it may be asleep, switched off or without network. If it is yours, check that wgexpose is running on it; else try again later.",
		RetryAfter: 10 * time.Second,
	}
	nodeDropped = &proxy.Problem{
		Status: http.StatusServiceUnavailable,
		Code:   "agent_away",
		Title:  "The service is offline",
		Detail: "The machine behind this address is not connected any more. If it is yours, join it again with a new invite.",
	}
	upstreamTimeout = &proxy.Problem{
		Status: http.StatusGatewayTimeout,
		Code:   "upstream_timeout",
		Title:  "The service does not answer",
		Detail: "The machine behind this address is connected, but the service on it did not accept a connection in time. If it is yours, check that it is running and not overloaded; else try again later.",
	}
	upstreamBusy = &proxy.Problem{
		Status:     http.StatusServiceUnavailable,
		Code:       "upstream_busy",
		Title:      "The service is overloaded",
		Detail:     "Too many connections wait for the service behind this address to accept them. If it is yours, check that it still answers; else try again later.",
		RetryAfter: 10 * time.Second,
	}
	overlayBroken = &proxy.Problem{
		Status: http.StatusBadGateway,
		Code:   "overlay_broken",
		Title:  "The service could not be reached",
		Detail: "The connection to the machine behind this address failed. Try again; if this is your service and it happens again, look into the edge's log.",
	}
	unknownHost = &proxy.Problem{
		Status: http.StatusNotFound,
		Code:   "unknown_host",
		Title:  "There is nothing at this address",
		Detail: "No service is published under this host name. Check the spelling; if it should be yours, publish it with wgexpose http.",
	}
	unknownChallenge = &proxy.Problem{
		Status: http.StatusNotFound,
		Code:   "unknown_challenge",
		Title:  "There is no such challenge",
		Detail: "Certificate authorities look here for the answer to a challenge, and none with this name is under way.",
	}
	misdirected = &proxy.Problem{
		Status: http.StatusMisdirectedRequest,
		Code:   "misdirected",
		Title:  "This connection is for another host",
		Detail: "The request names a host that the certificate of this connection does not cover. Open a new connection to that host.",
	}
	networkDenied = &proxy.Problem{
		Status: http.StatusForbidden,
		Code:   "network_denied",
		Title:  "You cannot come in from here",
		Detail: "This service is open to certain networks only, and yours is none of them. If it is yours, look at its cidr_allow and cidr_deny.",
	}
	passwordAsked = &proxy.Problem{
		Status: http.StatusUnauthorized,
		Code:   "password_asked",
		Title:  "This service asks for a password",
		Detail: "Give the user name and the password that the owner of this service told you.",
	}
	badRequest = &proxy.Problem{
		Status: http.StatusBadRequest,
		Code:   "bad_request",
		Title:  "The request can be read in two ways",
		Detail: "The request has several lengths, or blanks in its path. Send it as HTTP asks for.",
	}
	badHost = &proxy.Problem{
		Status: http.StatusBadRequest,
		Code:   "bad_host",
		Title:  "The host name cannot be read",
		Detail: "The Host header of the request is no valid host name. Check the address.",
	}
)

// upstreamProblem words what an agent says of an upstream that it cannot reach.
// Nil: it said nothing before it refused.
func upstreamProblem(why *failure) *proxy.Problem {
	p := &proxy.Problem{Status: http.StatusBadGateway}
	if why == nil {
		why = &failure{code: control.CodeUpstreamRefused}
	}
	var said, advice string
	switch why.code {
	case control.CodeUpstreamTimeout:
		return upstreamTimeout
	case control.CodeUpstreamTLS:
		p.Title = "The service's encryption cannot be trusted"
		said, advice = "but its encrypted connection to the service failed", "correct its certificate or address"
	case control.CodeUpstreamUnreachable:
		p.Title = "The service could not be reached"
		said, advice = "but it cannot reach the service", "check its address"
	default:
		why = &failure{code: control.CodeUpstreamRefused, reason: why.reason}
		p.Title = "The service is not running"
		said, advice = "but the service on it refused the connection", "start it and check its address"
	}
	p.Code = why.code
	if why.reason != "" {
		said += " (" + why.reason + ")"
	}
	p.Detail = "The machine behind this address is connected, " + said + ". If it is yours, " + advice + "; else try again later."
	return p
}
