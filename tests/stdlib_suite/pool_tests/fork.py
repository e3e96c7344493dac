"""With processes that are started by fork."""

import test._test_multiprocessing

test._test_multiprocessing.install_tests_in_module_dict(globals(), "fork")
