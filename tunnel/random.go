package tunnel

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// RandomName gives a name that is easy to read out and to type, such as
// "brave-otter-4821": one of 128 × 128 × 10,000, each equally likely, which is
// 27 bits. That makes collisions rare; the name is no secret. It panics when
// rand fails, which crypto/rand.Reader never does.
func RandomName(rand io.Reader) string {
	first, second := words(adjectives), words(animals)
	a := first[draw(rand, len(first))]
	b := second[draw(rand, len(second))]
	return fmt.Sprintf("%s-%s-%04d", a, b, draw(rand, 10000))
}

// draw gives a number below n, each equally likely; n is at most 1<<16.
func draw(rand io.Reader, n int) int {
	limit := 1 << 16 / n * n // beyond it the low numbers would be likelier
	for {
		var b [2]byte
		if _, err := io.ReadFull(rand, b[:]); err != nil {
			panic("tunnel: draw a random name: " + err.Error())
		}
		if v := int(binary.BigEndian.Uint16(b[:])); v < limit {
			return v % n
		}
	}
}

func words(list string) []string { return strings.Fields(list) }

// Words that are short, kind, spelled as they sound, and unlike each other.
const adjectives = `
agile alert amber ample apt aqua azure bold brave breezy bright brisk calm
candid cheery chief civil clean clear clever cosy cool coral crisp curly daring
deft dapper eager early easy elder epic even fair famous fancy fast fine fit
fleet fluffy fond frank free fresh friendly gentle giant glad golden good grand
great green handy happy hardy hearty honest humble ideal ivory jade jolly
joyful keen kind large lasting light lively loyal lucky lunar magic major mellow
merry mighty mild minty modest neat new nimble noble novel open patient plain
polite prime proud pure quick quiet rapid ready regal rosy royal ruby sharp
shiny silent silver smart snowy solar solid spry sturdy sunny super sure sweet
swift tidy tiny true trusty upbeat vivid warm wise witty zesty`

const animals = `
alpaca ant antelope badger bat bear beaver bee beetle bird bison boar bobcat
buffalo camel canary caribou cat cheetah chipmunk condor corgi cougar
coyote crab crane cricket crow curlew deer dingo dolphin donkey dove dragon duck
eagle egret eland elk emu falcon ferret finch flamingo fox frog gannet gazelle
gecko gibbon giraffe goat goose gopher grouse gull hamster hare hawk hedgehog
heron hippo horse husky ibex ibis iguana impala jackal jaguar jay kestrel kite
kitten kiwi koala lark lemur leopard lion lizard llama lobster lynx macaw magpie
mallard marmot marten meerkat mole moose moth mouse newt ocelot octopus oriole
oryx osprey otter owl panda parrot pelican penguin pigeon pony puffin puma quail
rabbit raven robin salmon seal swan tapir tiger turtle walrus whale wolf wombat
wren yak zebra`
