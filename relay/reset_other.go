//go:build !windows

package relay

import "syscall"

var resetAliases = [...]error{syscall.EPIPE, syscall.ENOTCONN, syscall.ECONNABORTED}
