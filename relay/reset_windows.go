package relay

import "golang.org/x/sys/windows"

var resetAliases = [...]error{windows.WSAECONNRESET, windows.WSAECONNABORTED, windows.WSAESHUTDOWN, windows.WSAENOTCONN}
