// Stands in for Apple's header, whose names cpp-httplib's header does not use.
#pragma once
