package proxy

import (
	"net/http"
	"time"
)

// What visitors read when there is no way, wherever HTTP ends.
var (
	UpstreamTimeout = &Problem{
		Status: http.StatusGatewayTimeout,
		Code:   "upstream_timeout",
		Title:  "The service does not answer",
		Detail: "The machine behind this address is connected, but the service on it did not accept a connection in time. If it is yours, check that it is running and not overloaded; else try again later.",
	}
	UpstreamBusy = &Problem{
		Status:     http.StatusServiceUnavailable,
		Code:       "upstream_busy",
		Title:      "The service is overloaded",
		Detail:     "Too many connections wait for the service behind this address to accept them. If it is yours, check that it still answers; else try again later.",
		RetryAfter: 10 * time.Second,
	}
	Misdirected = &Problem{
		Status: http.StatusMisdirectedRequest,
		Code:   "misdirected",
		Title:  "This connection is for another host",
		Detail: "The request names a host that the certificate of this connection does not cover. Open a new connection to that host.",
	}
	BadHost = &Problem{
		Status: http.StatusBadRequest,
		Code:   "bad_host",
		Title:  "The host name cannot be read",
		Detail: "The Host header of the request is no valid host name. Check the address.",
	}
)

// UpstreamFailed words why an upstream could not be dialled: code is that of the
// control API (upstream_refused, …), reason the agent's words, if any.
func UpstreamFailed(code, reason string) *Problem {
	p := &Problem{Status: http.StatusBadGateway, Code: code}
	var said, advice string
	switch code {
	case UpstreamTimeout.Code:
		return UpstreamTimeout
	case "upstream_tls":
		p.Title = "The service's encryption cannot be trusted"
		said, advice = "but its encrypted connection to the service failed", "correct its certificate or address"
	case "upstream_unreachable":
		p.Title = "The service could not be reached"
		said, advice = "but it cannot reach the service", "check its address"
	default:
		p.Code = "upstream_refused"
		p.Title = "The service is not running"
		said, advice = "but the service on it refused the connection", "start it and check its address"
	}
	if reason != "" {
		said += " (" + reason + ")"
	}
	p.Detail = "The machine behind this address is connected, " + said + ". If it is yours, " + advice + "; else try again later."
	return p
}
