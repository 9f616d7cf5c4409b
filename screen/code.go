package screen

import (
	"strings"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/mdp/qrterminal/v3"
)

// maxCode is the longest address that a QR code is made of, in bytes: more would
// fit on no screen.
const maxCode = 300

// codeLines show the address of the selected tunnel as a QR code, dark on light
// whatever the terminal's colours are, as scanners want it.
func (m *model) codeLines() []string {
	url, ok := m.address()
	if !ok {
		return []string{url, "", "any key goes back"}
	}
	if len(url) > maxCode {
		return []string{url, "", "it is too long for a QR code; any key goes back"}
	}
	var b strings.Builder
	qrterminal.GenerateWithConfig(url, qrterminal.Config{
		Level: qrterminal.L, Writer: &b, HalfBlocks: true, QuietZone: 4,
		// Drawn with black ink on white paper.
		BlackChar: "█", WhiteChar: " ", BlackWhiteChar: "▀", WhiteBlackChar: "▄",
	})
	paper := lipgloss.NewStyle().Foreground(lipgloss.Color("#000000")).Background(lipgloss.Color("#ffffff"))
	var lines []string
	for line := range strings.Lines(b.String()) {
		lines = append(lines, paper.Render(strings.TrimRight(line, "\n")))
	}
	lines = lines[:len(lines)-1] // half of it is the ground that the paper lies on
	if len(lines)+1 > m.height || ansi.StringWidth(lines[0]) > m.width {
		return []string{url, "", "the window is too small for its QR code; any key goes back"}
	}
	return append(lines, fit(url+"   (any key goes back)", m.width))
}
