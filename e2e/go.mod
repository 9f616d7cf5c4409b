module github.com/wgexpose/wgexpose/e2e

go 1.26.3

require (
	github.com/coder/websocket v1.8.15
	github.com/wgexpose/wgexpose v0.0.0-00010101000000-000000000000
	github.com/wgexpose/wgexpose/bench v0.0.0
	golang.org/x/net v0.62.0
	golang.org/x/sys v0.49.0
)

require github.com/gofrs/flock v0.13.1 // indirect

// The program under test is built from here (see binary); of its packages only
// internal/ports is imported.
replace github.com/wgexpose/wgexpose => ../

replace github.com/wgexpose/wgexpose/bench => ../bench
