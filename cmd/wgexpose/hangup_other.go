//go:build !unix

package main

// onHangup does nothing where there is no SIGHUP.
func onHangup(func()) (asked <-chan struct{}, unhook func()) { return nil, func() {} }
