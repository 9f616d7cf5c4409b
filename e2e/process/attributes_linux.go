package process

import "syscall"

// attributes has the kernel kill the program when this process dies, so that a
// test that was killed or timed out leaves nothing behind.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
