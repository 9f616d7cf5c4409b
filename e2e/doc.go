// Package e2e tests the program as its users have it: the real binary, edge and
// agent as processes of their own on this machine, and curl, OpenSSH and
// browsers' protocols on both sides.
//
//	s := startSystem(t, web, shell)           // an edge, an agent, their tunnels
//	curl(t, "--cacert", s.ca, s.url("web"))   // a visitor
//
// The folder apps has programs that people share, and what they need from npm.
//
// Run it with make e2e. A test that needs a program which is not installed
// skips and names it; with WGEXPOSE_REQUIRE_TOOLS=1 it fails. With
// WGEXPOSE_E2E_RACE=1 the binary is built with the race detector.
//
// TestFaults breaks networks (package lab) and processes. Each fault comes once,
// and nothing is asked of the clock; make e2e-faults runs them as often and as
// long as it takes to tell numbers, and prints them as a table.
//
// Nothing else here waits for a time to pass: processes tell what happens on their
// standard output, and origins (package origin) are in the test's own hands.
package e2e
