/* names and places of code, for messages and for the list of kernels that ran */
#include <cxxabi.h>
#include <elf.h>
#include <link.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unordered_map>

#include "cudart.h"

namespace simt {

namespace {

int first_object(struct dl_phdr_info *info, size_t, void *base) {
  *static_cast<uintptr_t *>(base) = info->dlpi_addr;
  return 1;
}
uintptr_t program_base() {
  uintptr_t base = 0;
  dl_iterate_phdr(first_object, &base);
  return base;
}

/* functions of the program's symbol table, local ones too, by address */
std::unordered_map<uintptr_t, std::string> read_symbols() {
  std::unordered_map<uintptr_t, std::string> all;
  FILE *file = fopen("/proc/self/exe", "rb");
  if (!file) return all;
  Elf64_Ehdr head;
  if (fread(&head, sizeof head, 1, file) == 1 && !memcmp(head.e_ident, ELFMAG, SELFMAG)) {
    std::vector<Elf64_Shdr> sections(head.e_shnum);
    auto read = [&](size_t at, void *to, size_t bytes) { return !fseek(file, (long)at, SEEK_SET) && fread(to, 1, bytes, file) == bytes; };
    if (read(head.e_shoff, sections.data(), sections.size() * sizeof(Elf64_Shdr)))
      for (auto &s : sections) {
        if (s.sh_type != SHT_SYMTAB || s.sh_link >= sections.size()) continue;
        std::vector<Elf64_Sym> symbols(s.sh_size / sizeof(Elf64_Sym));
        std::vector<char>      names(sections[s.sh_link].sh_size + 1);
        if (!read(s.sh_offset, symbols.data(), symbols.size() * sizeof(Elf64_Sym)) ||
            !read(sections[s.sh_link].sh_offset, names.data(), names.size() - 1))
          continue;
        for (auto &symbol : symbols)
          if (ELF64_ST_TYPE(symbol.st_info) == STT_FUNC && symbol.st_name < names.size())
            all[symbol.st_value] = names.data() + symbol.st_name;
      }
  }
  fclose(file);
  return all;
}

}

std::string symbol_of(const void *code) {
  static const auto symbols = read_symbols();
  auto it = symbols.find((uintptr_t)code - program_base());
  if (it == symbols.end()) return "?";
  int   status;
  char *plain = abi::__cxa_demangle(it->second.c_str(), nullptr, nullptr, &status);
  std::string name = plain ? plain : it->second;
  free(plain);
  return name;
}

/* by the system's addr2line, where there is one */
std::string place_of(const void *pc) {
  char      command[200], text[512];
  uintptr_t offset = (uintptr_t)pc - program_base() - 1;
  snprintf(text, sizeof text, "code %#zx", offset);
  snprintf(command, sizeof command, "addr2line -e /proc/%d/exe %#zx 2>/dev/null", (int)getpid(), offset);
  if (FILE *pipe = popen(command, "r")) {
    char line[512];
    if (fgets(line, sizeof line, pipe) && line[0] != '?') {
      line[strcspn(line, "\n")] = 0;
      snprintf(text, sizeof text, "%s", line);
    }
    pclose(pipe);
  }
  return text;
}

}
