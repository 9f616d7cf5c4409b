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
	// edgeStopping is why what did not finish in time ended with the front.
	edgeStopping = &proxy.Problem{
		Status:     http.StatusServiceUnavailable,
		Code:       "edge_stopping",
		Title:      "The service is being restarted",
		Detail:     "The server in front of this service is stopping, and had to end what was under way. Try again in a moment.",
		RetryAfter: 5 * time.Second,
	}
	nodeDropped = &proxy.Problem{
		Status: http.StatusServiceUnavailable,
		Code:   "agent_away",
		Title:  "The service is offline",
		Detail: "The machine behind this address is not connected any more. If it is yours, join it again with a new invite.",
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
	passwordsWait = &proxy.Problem{
		Status:     http.StatusTooManyRequests,
		Code:       "passwords_wait",
		Title:      "Too many passwords at once",
		Detail:     "So many requests from your address wait to have their passwords checked that this one was not. Try again in a moment.",
		RetryAfter: 10 * time.Second,
	}
)

// upstreamProblem words what an agent says of an upstream that it cannot reach.
// Nil: it said nothing before it refused.
func upstreamProblem(why *failure) *proxy.Problem {
	if why == nil {
		why = &failure{code: control.CodeUpstreamRefused}
	}
	return proxy.UpstreamFailed(why.code, why.reason)
}
