# SPDX-License-Identifier: Apache-2.0
# cmake -D NAME=kName -D TEXT=file -D SOURCE=out.cc -P embed_text.cmake
file(READ ${TEXT} content)
# In pieces: the standard promises literals of 65536 bytes, and some compilers hold to it.
string(LENGTH "${content}" length)
string(CONCAT source "// Made from ${TEXT} by embed_text.cmake.\n#include \"apps/report/page_text.h\"\n\n"
                     "namespace blockstate::apps {\n\nconst std::string_view ${NAME} =")
set(begin 0)
while(begin LESS length)
  string(SUBSTRING "${content}" ${begin} 16000 piece)
  string(APPEND source "\n    R\"blockstate(${piece})blockstate\"")
  math(EXPR begin "${begin} + 16000")
endwhile()
string(APPEND source "\n    \"\";\n\n}  // namespace blockstate::apps\n")
file(WRITE ${SOURCE} "${source}")
