module github.com/wgexpose/wgexpose/e2e

go 1.26.3

require github.com/coder/websocket v1.8.15

// The program under test is built from here (see binary), not imported.
replace github.com/wgexpose/wgexpose => ../
