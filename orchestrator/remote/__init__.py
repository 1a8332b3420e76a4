"""A farm's own end: putting the runner and the steps there, and trying everything that a farm needs.

package     what is sent: which files, which packages, and the name that follows from them
farside     what runs there: text for the farm's Python, which needs nothing but its standard library
target      which farm, the way to it, the steps that are done there
far         calling it through a transport, and finding a Python there
install     sending, checking, switching over, clearing away
check       everything tried in turn, with what to do about each fault
trial       one real job that proves that the nodes see what they need; onnode is its step
"""
