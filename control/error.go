package control

import (
	"errors"
	"net/http"
)

// The codes of an [Error]. They are part of the wire format and of the --json
// output, so they are never renamed.
const (
	CodeInviteUsed    = "invite_used"    // every use of the invite is taken
	CodeInviteExpired = "invite_expired" // the invite's time is over
	CodeInviteRevoked = "invite_revoked" // the invite was withdrawn at the edge
	CodeKeyKnown      = "key_known"      // the public key belongs to another node
	CodeNameTaken     = "name_taken"     // another agent holds the name or host name
	CodeNameInvalid   = "name_invalid"   // the name or host name cannot be served here
	CodeNameDenied    = "name_denied"    // the host name is none that the agent may have
	CodePortTaken     = "port_taken"     // another agent or program holds the port
	CodePortRange     = "port_range"     // the port lies outside of the edge's range
	CodeBadRequest    = "bad_request"    // not a request of this API
	CodeRevoked       = "revoked"        // the agent was revoked at the edge
	CodeSuperseded    = "superseded"     // another process with the same key took over
	CodeNotEnrolled   = "not_enrolled"   // the caller is not an agent of this edge
	CodeNotFound      = "not_found"      // no such call, or nothing by that name
	CodeUnavailable   = "unavailable"    // the edge is stopping; ask again
	// CodeCertificatePending is a tunnel's that is served as soon as its host
	// name has a certificate; ask again.
	CodeCertificatePending = "certificate_pending"
	// CodeDNSPending is a tunnel's that is served as soon as its host name leads to
	// the edge; ask again.
	CodeDNSPending = "dns_pending"
	CodeInternal   = "internal" // the edge's own fault; its log says more
)

// Codes of an upstream that an agent cannot reach. They are also what visitors
// read in the header Wgexpose-Error.
const (
	CodeUpstreamRefused     = "upstream_refused"     // nobody listens there
	CodeUpstreamTimeout     = "upstream_timeout"     // no answer
	CodeUpstreamTLS         = "upstream_tls"         // no TLS, or a certificate that is not trusted
	CodeUpstreamUnreachable = "upstream_unreachable" // anything else
)

// Error is a refusal that travels: a [Handler] returns it, and the [Client]
// returns an equal one on the other side.
type Error struct {
	Code    string `json:"code"`    // one of the Code constants, or a newer one
	Message string `json:"message"` // for a person: what happened, why, what to do
}

func (e *Error) Error() string { return e.Message }

// Passing reports whether the error may be gone at the next try, so that nobody
// should give up for it.
func (e *Error) Passing() bool {
	switch e.Code {
	case CodeUnavailable, CodeInternal, CodeCertificatePending, CodeDNSPending:
		return true
	}
	return false
}

// CodeOf returns the code of the *Error that err is or wraps, or "".
func CodeOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// status is the HTTP status that carries the error. Nobody decides by it: the
// code does. It keeps generic HTTP tools useful.
func (e *Error) status() int {
	switch e.Code {
	case CodeInviteUsed, CodeInviteExpired, CodeInviteRevoked, CodeRevoked, CodeNotEnrolled, CodeNameDenied:
		return http.StatusForbidden
	case CodeKeyKnown, CodeNameTaken, CodePortTaken, CodeSuperseded:
		return http.StatusConflict
	case CodeBadRequest, CodePortRange, CodeNameInvalid:
		return http.StatusBadRequest
	case CodeNotFound:
		return http.StatusNotFound
	case CodeUnavailable:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

// errorBody is the JSON object in the body of a refusal.
type errorBody struct {
	Error *Error `json:"error"`
}
