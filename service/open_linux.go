package service

import "context"

// NeedsLinger tells that the services of a user end when the user logs out,
// unless "loginctl enable-linger" says otherwise.
const NeedsLinger = true

// Service is one that may be installed or not. Its calls return when they have
// taken effect.
type Service struct{ *systemd }

// Open installs nothing.
func Open(spec Spec) (Service, error) {
	if err := spec.Validate(); err != nil {
		return Service{}, err
	}
	s, err := openSystemd(spec)
	return Service{s}, err
}

// Run calls run. Elsewhere a service manager may have started the process, and
// ends ctx.
func Run(ctx context.Context, run func(context.Context) int) int { return run(ctx) }
