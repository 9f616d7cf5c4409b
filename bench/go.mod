module github.com/wgexpose/wgexpose/bench

go 1.26.3

require (
	go.uber.org/goleak v1.3.0
	golang.org/x/sys v0.49.0
	golang.zx2c4.com/wireguard v0.0.0-20260522210424-ecfc5a8d5446
	gvisor.dev/gvisor v0.0.0-20260905035102-160fafc42237 // the same as the product's, so that only the TUN differs
)

// The program that is measured is built from here and run, not imported.
replace github.com/wgexpose/wgexpose => ../
