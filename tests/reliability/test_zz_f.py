import sys; sys.path.insert(0,"/tmp/h/p/tests/reliability")
from test_arguments import *
def test_mine(base, capsys):
    chosen=[c for c in calls(base) if c[0]=="faithfulness"]
    print(len(chosen))
    bad=[wrong for call in chosen if (wrong := fault(capsys, *call))]
    assert not bad, bad[:5]
